//! The objects of one watch, reduced to what matters.

use std::collections::BTreeMap;

use imbl::OrdMap;
use kube::runtime::watcher::Event;

use crate::desired::problem::Problem;
use crate::snapshot::ObjectName;

/// What an object turned out to be.
pub(super) enum Read<T> {
    /// It matters.
    Kept(T),
    /// It does not.
    Passed,
    /// It cannot be used: what it last was stays in force.
    Bad(Problem),
}

/// A consistent set of objects.
#[derive(Debug)]
struct Objects<T> {
    kept: OrdMap<ObjectName, T>,
    problems: BTreeMap<ObjectName, Problem>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self { kept: OrdMap::new(), problems: BTreeMap::new() }
    }
}

/// What a watch has shown. A list that is only coming in is not in force before it is complete.
#[derive(Debug)]
pub(super) struct Store<T> {
    now: Option<Objects<T>>,
    incoming: Objects<T>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { now: None, incoming: Objects::default() }
    }
}

impl<T: PartialEq + Clone> Store<T> {
    /// The objects in force; `None` before the first list is complete.
    pub(super) fn kept(&self) -> Option<&OrdMap<ObjectName, T>> {
        self.now.as_ref().map(|objects| &objects.kept)
    }

    /// Objects that cannot be used.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.now.iter().flat_map(|objects| objects.problems.values())
    }

    /// Forgets everything, as before the first list.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes an event over. Returns whether what is in force changed.
    pub(super) fn take(&mut self, event: Event<(ObjectName, Read<T>)>) -> bool {
        match event {
            Event::Init => {
                self.incoming = Objects::default();
                false
            }
            Event::InitApply((name, read)) => {
                let before = self.now.as_ref().and_then(|now| now.kept.get(&name).cloned());
                if let (Read::Bad(_), Some(before)) = (&read, before) {
                    self.incoming.kept.insert(name.clone(), before);
                }
                self.incoming.put(name, read);
                false
            }
            Event::InitDone => {
                let complete = std::mem::take(&mut self.incoming);
                let same = self
                    .now
                    .as_ref()
                    .is_some_and(|now| now.kept == complete.kept && now.problems == complete.problems);
                self.now = Some(complete);
                !same
            }
            Event::Apply((name, read)) => self.now.get_or_insert_default().put(name, read),
            Event::Delete((name, _)) => self.now.get_or_insert_default().put(name, Read::Passed),
        }
    }
}

impl<T: PartialEq + Clone> Objects<T> {
    /// Returns whether anything is different now.
    fn put(&mut self, name: ObjectName, read: Read<T>) -> bool {
        match read {
            Read::Kept(object) => {
                let told = self.problems.remove(&name).is_some();
                let same = self.kept.get(&name) == Some(&object);
                self.kept.insert(name, object);
                told || !same
            }
            Read::Passed => {
                let told = self.problems.remove(&name).is_some();
                self.kept.remove(&name).is_some() || told
            }
            Read::Bad(problem) => {
                let same = self.problems.get(&name) == Some(&problem);
                self.problems.insert(name, problem);
                !same
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event<(ObjectName, Read<i32>)> {
        let object = |text: &str| {
            let (name, value) = text.split_at(1);
            let read = match value {
                "" => Read::Passed,
                "!" => Read::Bad(Problem::warning(name, "f", "m", "r")),
                number => Read::Kept(number.parse().unwrap()),
            };
            (ObjectName::new("", name), read)
        };
        match text.split_at(1) {
            ("[", "") => Event::Init,
            ("]", "") => Event::InitDone,
            (":", rest) => Event::InitApply(object(rest)),
            ("+", rest) => Event::Apply(object(rest)),
            ("-", rest) => Event::Delete(object(rest)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_counts_once_it_is_complete_and_what_is_bad_stays_as_it_was() {
        let mut store = Store::default();
        for (events, changed, kept) in [
            ("[ :a1", false, "?"),
            (":b2 ]", true, "a1 b2"),
            ("+a1", false, "a1 b2"),
            ("+a3", true, "a3 b2"),
            // A new list, after a 410 for example: nothing is gone before it is complete.
            ("[ :a3", false, "a3 b2"),
            // It broke off and starts anew.
            ("[ :a3 :b2 ]", false, "a3 b2"),
            ("[ :b2 ]", true, "b2"),
            ("+b!", true, "b2 !"),
            ("+b!", false, "b2 !"),
            ("[ :b! :a! ]", true, "b2 !!"),
            ("+a", true, "b2 !"),
            ("-b", true, ""),
            ("-b", false, ""),
            ("[ ]", false, ""),
        ] {
            let mut any = false;
            for text in events.split(' ') {
                any |= store.take(event(text));
            }
            let mut got: Vec<_> = store
                .kept()
                .map(|kept| kept.iter().map(|(name, value)| format!("{}{value}", name.name)).collect())
                .unwrap_or_else(|| vec!["?".to_owned()]);
            let problems = "!".repeat(store.problems().count());
            got.extend(Some(problems).filter(|text| !text.is_empty()));
            assert_eq!((any, &got.join(" ")[..]), (changed, kept), "{events}");
        }
    }
}
