//! What was written and told, so that nothing is repeated and nobody is fought.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::report::event::{Event, Reason};
use crate::report::plan::{self, Duty, duty};
use crate::report::{Sent, State, Target, Write};
use crate::snapshot::{BoundLabel, ObjectName, Pod};

/// After a patch its echo is awaited for this long before it is sent again.
pub const ECHO: Duration = Duration::from_secs(2);
/// First pause when a pod has changed since it was looked at; its new state is on the way. It doubles as the next.
pub const STALE: Duration = Duration::from_millis(50);
/// First pause after a failed write; it doubles up to [`RETRY_MAX`].
pub const RETRY: Duration = Duration::from_secs(1);
/// Longest pause after failed writes.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// Somebody who undoes a patch this often …
pub const CONTESTS: usize = 5;
/// … within this time is left his way,
pub const CONTEST_WINDOW: Duration = Duration::from_secs(60);
/// for this long at first, doubled each time up to [`YIELD_MAX`].
pub const YIELD: Duration = Duration::from_secs(60);
/// Longest time.
pub const YIELD_MAX: Duration = Duration::from_secs(960);
/// So many Events are known to have been told before; more, and the count starts anew.
const RECURRING: usize = 10_000;

/// A patch as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Patch {
    /// It set rather than removed.
    set: bool,
    /// The API has shown it.
    seen: bool,
}

/// Somebody undoes a patch.
#[derive(Clone, Default, Debug)]
struct Contest {
    undone: VecDeque<Instant>,
    yields: u32,
    until: Option<Instant>,
}

/// What was written and told. Starts empty: what the objects themselves show is adopted.
#[derive(Clone, Default, Debug)]
pub struct Memory {
    owner: Option<String>,
    /// This node had something to write at the last look.
    on_duty: bool,
    /// Pods whose `EipBound` was told: EIP and uid → name.
    bound: BTreeMap<(Ipv4Addr, String), ObjectName>,
    /// Standing Events that were told and still hold, by base name.
    told: BTreeSet<String>,
    /// Standing Events that were told and no longer hold.
    recurring: BTreeSet<String>,
    patches: BTreeMap<Target, Patch>,
    contests: BTreeMap<Target, Contest>,
    /// Failures in a row.
    failures: BTreeMap<Target, u32>,
    not_before: BTreeMap<Target, Instant>,
}

impl Memory {
    /// Looks at the latest state, before [`plan::writes`].
    pub fn observe(&mut self, state: &State, now: Instant) {
        if let Some(owner) = &state.desired.gateways.owner {
            self.owner = Some(owner.clone());
        }
        let duty = duty(state, self.owner());
        if duty != Duty::Everything {
            // Another one writes, or none: what it wrote is adopted when it is our turn.
            let standing = self.standing(state, duty);
            *self = Self { owner: self.owner.take(), ..Self::default() };
            self.told = standing;
            return;
        }
        if !self.on_duty {
            self.adopt(state);
            self.on_duty = true;
        }
        let uids = state.snapshot.pods.values().map(|pod| pod.uid.as_str()).collect();
        self.bound.retain(|(_, uid), _| HashSet::contains(&uids, uid.as_str()));
        self.follow_patches(state, &uids, now);
        let still = self.standing(state, duty);
        self.recurring.extend(self.told.difference(&still).cloned());
        if self.recurring.len() > RECURRING {
            self.recurring.clear();
        }
        self.told = still;
        self.not_before.retain(|_, until| *until > now);
    }

    /// Told Events that still hold.
    fn standing(&self, state: &State, duty: Duty) -> BTreeSet<String> {
        let names = plan::standing(state, self, duty).into_iter().map(|event| event.base_name());
        names.filter(|name| self.told.contains(name)).collect()
    }

    /// What an earlier agent, or the owner before, has told.
    fn adopt(&mut self, state: &State) {
        for (eip, claim) in &state.desired.served {
            let told = [BoundLabel::Bound(*eip), BoundLabel::Other];
            let bound = |pod: &&Pod| told.contains(&pod.bound_label);
            if let Some(pod) = state.snapshot.pods.get(&claim.pod).filter(bound) {
                self.bound.insert((*eip, pod.uid.clone()), claim.pod.clone());
            }
        }
    }

    /// Sees patches come back from the API, and being undone by others.
    fn follow_patches(&mut self, state: &State, uids: &HashSet<&str>, now: Instant) {
        let wanted: BTreeMap<Target, bool> =
            plan::patches(state).into_iter().map(|(write, set)| (write.target(), set)).collect();
        let mut undone = Vec::new();
        for (target, patch) in &mut self.patches {
            match wanted.get(target) {
                None => {
                    patch.seen = true;
                    self.not_before.remove(target);
                    self.failures.remove(target);
                }
                Some(set) if *set != patch.set => {
                    // Bound or released since: no echo to wait for.
                    self.not_before.remove(target);
                    *patch = Patch { set: *set, seen: false };
                }
                Some(_) if patch.seen => {
                    patch.seen = false;
                    undone.push(target.clone());
                }
                Some(_) => {}
            }
        }
        for target in undone {
            self.contests.entry(target).or_default().note(now);
        }
        let lives = |target: &Target| match target {
            Target::Pod(uid) => uids.contains(uid.as_str()),
            Target::Node(node) => state.snapshot.nodes.contains_key(node),
            Target::Event(_) => true,
        };
        self.patches.retain(|target, _| lives(target));
        self.contests.retain(|target, contest| lives(target) && contest.lasts(now));
        self.failures.retain(|target, _| lives(target));
    }

    /// Notes what became of a write.
    pub fn note(&mut self, write: &Write, sent: &Sent, now: Instant) {
        let target = write.target();
        let pause = match sent {
            Sent::Done => return self.done(write, target, now),
            Sent::Forbidden(_) => RETRY_MAX,
            Sent::Conflict => self.longer(&target, STALE),
            Sent::Gone | Sent::Refused(_) | Sent::Unreachable(_) => self.longer(&target, RETRY),
        };
        self.not_before.insert(target, now + pause);
    }

    /// The pause after one more failure, when the first one's is this.
    fn longer(&mut self, target: &Target, first: Duration) -> Duration {
        let failures = self.failures.entry(target.clone()).or_default();
        *failures = failures.saturating_add(1);
        first.saturating_mul(1 << (*failures - 1).min(10)).min(RETRY_MAX)
    }

    fn done(&mut self, write: &Write, target: Target, now: Instant) {
        self.failures.remove(&target);
        self.not_before.remove(&target);
        match write {
            Write::Pod { set, .. } => {
                self.not_before.insert(target.clone(), now + ECHO);
                self.patches.insert(target, Patch { set: *set, seen: false });
            }
            Write::Node { .. } => {
                self.not_before.insert(target.clone(), now + ECHO);
                self.patches.insert(target, Patch { set: true, seen: false });
            }
            Write::Event(event) => self.told(event),
        }
    }

    fn told(&mut self, event: &Event) {
        let key = event.eip.zip(event.uid.clone());
        match (event.reason, key) {
            (Reason::EipBound, Some(key)) => {
                self.bound.insert(key, event.object.clone());
            }
            (Reason::EipReleased, Some(key)) => {
                self.bound.remove(&key);
            }
            _ => {
                self.told.insert(event.base_name());
            }
        }
    }

    /// The node that was last known to own the external network.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// When the first of what is to be tried again is due, as far as that is known; `None`: nothing is.
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        let first = self.not_before.values().min().map(|time| time.saturating_duration_since(now));
        first.or_else(|| (!self.contests.is_empty()).then_some(Duration::MAX))
    }

    pub(super) fn is_bound(&self, eip: Ipv4Addr, uid: &str) -> bool {
        let mut of_eip = self.bound.range((eip, String::new())..).take_while(|((of, _), _)| *of == eip);
        of_eip.any(|((_, bound), _)| bound == uid)
    }

    pub(super) fn bound(&self) -> impl Iterator<Item = (Ipv4Addr, &str, &ObjectName)> {
        self.bound.iter().map(|((eip, uid), name)| (*eip, uid.as_str(), name))
    }

    pub(super) fn is_news(&self, event: &Event) -> bool {
        !self.told.contains(&event.base_name())
    }

    /// It was told before, did not hold for a while, and holds again.
    pub(super) fn is_recurring(&self, event: &Event) -> bool {
        self.recurring.contains(&event.base_name())
    }

    pub(super) fn is_due(&self, target: &Target, now: Instant) -> bool {
        let yields =
            self.contests.get(target).and_then(|contest| contest.until).is_some_and(|until| until > now);
        !yields && self.not_before.get(target).is_none_or(|until| *until <= now)
    }

    pub(super) fn contested(&self) -> impl Iterator<Item = &Target> {
        self.contests.iter().filter(|(_, contest)| contest.until.is_some()).map(|(target, _)| target)
    }
}

impl Contest {
    /// A patch was undone.
    fn note(&mut self, now: Instant) {
        self.undone.push_back(now);
        while self.undone.front().is_some_and(|first| now.saturating_duration_since(*first) > CONTEST_WINDOW)
        {
            self.undone.pop_front();
        }
        if self.undone.len() >= CONTESTS || self.yields > 0 {
            self.until = Some(now + YIELD.saturating_mul(1 << self.yields.min(10)).min(YIELD_MAX));
            self.yields += 1;
            self.undone.clear();
        }
    }

    /// It is not over: it was undone lately, or is left as it is, or was until a while ago.
    fn lasts(&self, now: Instant) -> bool {
        let since = |time: &Instant, limit| now.saturating_duration_since(*time) <= limit;
        self.undone.back().is_some_and(|last| since(last, CONTEST_WINDOW))
            || self.until.is_some_and(|until| since(&until, CONTEST_WINDOW))
    }
}
