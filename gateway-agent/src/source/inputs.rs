//! What a source of objects knows, whichever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gateway_common::addr::Prefix;
use imbl::OrdMap;

use crate::config;
use crate::desired::problem::{Kind, Problem};
use crate::snapshot::{Configured, Node, ObjectName, Pod, Vmi};

/// What a source knows: its part of a [`Snapshot`](crate::snapshot::Snapshot).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    /// Pods by namespace and name.
    pub pods: OrdMap<ObjectName, Pod>,
    /// Not all pods are known.
    pub partial: bool,
    /// VirtualMachineInstances by namespace and name.
    pub vmis: OrdMap<ObjectName, Vmi>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Service CIDRs.
    pub service_cidrs: BTreeSet<Prefix>,
    /// The configuration in force.
    pub configured: Configured,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// How long a ConfigMap may be away before that counts as its end: tools delete and create what
/// they replace.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// The last good configuration.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct LastGood {
    configured: Configured,
    /// Since when the ConfigMap is away, while its last word is still in force.
    away: Option<Instant>,
}

impl LastGood {
    /// Takes over what the ConfigMap, as `object` in problems, says at `now`: its `data`, or `None`
    /// when it is not there. Returns the problems; a configuration that is refused leaves the last
    /// good one in force.
    pub(super) fn update(
        &mut self,
        object: &str,
        data: Option<&BTreeMap<String, String>>,
        now: Instant,
    ) -> Vec<Problem> {
        let Some(data) = data else { return self.missing(object, now).into_iter().collect() };
        self.away = None;
        match config::parse(data, object) {
            Ok(parsed) => {
                self.configured = parsed.config.map_or(Configured::Disabled, Configured::Enabled);
                parsed.warnings
            }
            Err(mut problems) => {
                for problem in problems.iter_mut().filter(|problem| problem.kind == Kind::Refused) {
                    problem.remedy.push_str("; until then the last good configuration stays in force");
                }
                problems
            }
        }
    }

    /// A ConfigMap that was never seen may still come; one that was in force and is away is gone
    /// after [`GRACE`].
    fn missing(&mut self, object: &str, now: Instant) -> Option<Problem> {
        if !matches!(self.configured, Configured::Enabled(_)) {
            return None;
        }
        let since = *self.away.get_or_insert(now);
        if now.saturating_duration_since(since) >= GRACE {
            *self = Self { configured: Configured::Disabled, away: None };
            return None;
        }
        Some(Problem::warning(
            object,
            "metadata.name",
            format!("it was deleted; nothing changes for {} s, then every EIP is withdrawn", GRACE.as_secs()),
            "create it again; to withdraw at once write enable-external-gw: \"false\"",
        ))
    }

    /// When a ConfigMap that is away counts as gone: [`Self::update`] is due then.
    pub(super) fn due(&self) -> Option<Instant> {
        self.away.map(|since| since + GRACE)
    }

    /// The configuration in force.
    pub(super) fn configured(&self) -> &Configured {
        &self.configured
    }

    /// As if the ConfigMap were away for so much longer.
    #[cfg(test)]
    pub(super) fn pass(&mut self, time: Duration) {
        self.away = self.away.and_then(|since| since.checked_sub(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example_data;

    /// What the ConfigMap says, second by second, and what is in force: `?` not known, `+` enabled,
    /// `-` withdrawn. A star: with a warning.
    #[test]
    fn a_configmap_that_is_away_is_gone_after_a_while() {
        for (case, says, expected) in [
            ("never seen", "0 20", "? ?"),
            ("good", "0+", "+"),
            ("deleted for good", "0+ 1 5 10.9 11 30", "+ +* +* +* - -"),
            ("deleted and made again", "0+ 1 10 10.5+ 11 20.9 21", "+ +* +* + +* +* -"),
            ("made again, bad", "0+ 1 2! 12 21.9 22", "+ +* +* +* +* -"),
            ("made again later", "0+ 1 11 12+ 13", "+ +* - + +*"),
            ("switched off", "0+ 1-", "+ -"),
            ("switched off while it is away", "0+ 1 2- 3", "+ +* - -"),
            ("off and deleted", "0- 1 2", "- - -"),
            ("without the word", "0+ 1e 99e", "+ +* +*"),
            ("without the word from the start", "0e 99e", "?* ?*"),
        ] {
            let (mut last_good, start) = (LastGood::default(), Instant::now());
            let mut seen = Vec::new();
            for step in says.split(' ') {
                let word = step.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                let second = step.strip_suffix(word).unwrap().parse().unwrap();
                let mut data = example_data();
                let key = "enable-external-gw".to_owned();
                match word {
                    "-" => _ = data.insert(key, "false".to_owned()),
                    "!" => _ = data.insert(key, "yes".to_owned()),
                    "e" => data.clear(),
                    _ => {}
                }
                let data = Some(&data).filter(|_| !word.is_empty());
                let problems = last_good.update("configmap x", data, start + Duration::from_secs_f64(second));
                let state = match last_good.configured() {
                    Configured::Unknown => "?",
                    Configured::Disabled => "-",
                    Configured::Enabled(_) => "+",
                };
                seen.push(format!("{state}{}", if problems.is_empty() { "" } else { "*" }));
                assert_eq!(last_good.due().is_some(), word.is_empty() && state == "+", "{case}: {step}");
            }
            assert_eq!(seen.join(" "), expected, "{case}");
        }
    }
}
