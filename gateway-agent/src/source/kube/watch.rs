//! One watch: its list and its events into its store, for ever.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::debug;

use super::connection::{Connection, Failure, Trouble};
use super::store::{Read, Store};
use super::world::World;
use crate::desired::problem::Problem;
use crate::snapshot::ObjectName;
use crate::source::manifest::{Fault, ObjectKind, Reader};

/// First pause after a failure; it doubles up to the longest, and up to half of it is left out by chance.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before an API server that did not answer is asked again.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
/// Longest pause after an answer that did not help.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long after a failure a watch has to be quiet to count as working again: longer than a connection may take.
const QUIET: Duration = Duration::from_secs(8);
/// How often it is asked whether an optional resource is served by now.
const DISCOVERY: Duration = Duration::from_secs(60);
/// Objects in a page of a list.
const PAGE: u32 = 200;

/// What all watches share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) reader: Reader,
    /// Name of this Node.
    pub(super) node: String,
    /// Somebody has to look at the stores.
    pub(super) changed: Notify,
    /// A launcher pod of a VirtualMachineInstance appeared that is not known: they may be served by now.
    pub(super) launched: Notify,
    /// The API server answers again: no use waiting any longer.
    answers: Notify,
    connection: Connection,
    world: Mutex<World>,
}

impl Context {
    pub(super) fn new(connection: Connection, reader: Reader, node: String) -> Self {
        Self {
            reader,
            node,
            changed: Notify::new(),
            launched: Notify::new(),
            answers: Notify::new(),
            connection,
            world: Mutex::default(),
        }
    }

    /// The stores.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits after a failure, but not longer than until another watch succeeds.
    async fn pause(&self, failures: u32, longest: Duration) {
        let pause = jittered(PAUSE.saturating_mul(1 << failures.min(10)).min(longest));
        // Elapsed or told: both are a reason to try again.
        _ = timeout(pause, self.answers.notified()).await;
    }

    /// Changes the stores; tells so when `change` says it is news.
    fn update(&self, change: impl FnOnce(&mut World) -> bool) {
        if change(&mut self.world()) {
            self.changed.notify_one();
        }
    }
}

/// An optional resource: its group and version, and its plural.
pub(super) struct Optional {
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
}

/// A resource that is watched.
pub(super) trait Watched: Send + 'static {
    /// As the API has it.
    type Object: Resource<DynamicType: Send + Sync> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// As it is kept.
    type Kept: PartialEq + Clone + Send;
    /// Tells the watches apart, and is the word in problems.
    const WHAT: &'static str;
    /// Kind of the objects.
    const KIND: ObjectKind;
    /// Where it may be missing, or out of bounds for us.
    const OPTIONAL: Option<Optional> = None;

    /// Where to look.
    fn api(client: Client, context: &Context) -> Api<Self::Object>;

    /// What of it to look at.
    fn select(config: watcher::Config, _context: &Context) -> watcher::Config {
        config
    }

    /// What makes it likely that an optional resource is served by now.
    fn hint(_context: &Context) -> Option<&Notify> {
        None
    }

    /// Where to put it.
    fn store(world: &mut World) -> &mut Store<Self::Kept>;

    /// What to keep of an object; `None`: it does not matter.
    fn read(reader: &Reader, object: Self::Object) -> Result<Option<Self::Kept>, Fault>;
}

/// Keeps the store of a resource up to date, for ever.
pub(super) async fn follow<W: Watched>(context: std::sync::Arc<Context>) {
    let mut failures = 0;
    loop {
        let failure = match context.connection.client().await {
            Err(error) => error.into(),
            Ok(client) => match served::<W>(&client).await {
                Err(failure) => failure,
                Ok(false) => Failure { trouble: Trouble::NotServed, message: String::new() },
                Ok(true) => watch::<W>(&context, client, &mut failures).await,
            },
        };
        if matches!(failure.trouble, Trouble::Unauthorized) {
            context.connection.renew().await;
        }
        let longest = longest_pause(failure.trouble);
        if told::<W>(&context, failure) {
            let hint = async {
                match W::hint(&context) {
                    Some(hint) => hint.notified().await,
                    None => std::future::pending().await,
                }
            };
            // Elapsed or told: both are a reason to ask again.
            _ = timeout(jittered(DISCOVERY), hint).await;
        } else {
            context.pause(failures, longest).await;
        }
        failures += 1;
    }
}

/// Whether a resource is served; one that is not optional always is.
async fn served<W: Watched>(client: &Client) -> Result<bool, Failure> {
    let Some(Optional { version, plural }) = W::OPTIONAL else { return Ok(true) };
    match client.list_api_group_resources(version).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == plural)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Notes a failure. Returns whether the resource is out of reach for good as far as can be seen.
fn told<W: Watched>(context: &Context, failure: Failure) -> bool {
    debug!(what = W::WHAT, ?failure, "watch");
    // An answer is an answer: the others need not wait for a resource that cannot be had.
    let answered = match failure.trouble {
        Trouble::NotServed | Trouble::Forbidden | Trouble::Refused => true,
        Trouble::Client | Trouble::Unreachable | Trouble::Unauthorized | Trouble::Gone => false,
    };
    let absent = answered && W::OPTIONAL.is_some();
    context.update(|world| {
        let news = absent && W::store(world).kept().is_none() && world.absent.insert(W::WHAT);
        let told = if absent && failure.trouble == Trouble::NotServed {
            world.succeeded(W::WHAT)
        } else {
            failure.trouble != Trouble::Gone && world.failed(W::WHAT, failure)
        };
        news || told
    });
    absent
}

/// Lists and watches until credentials or a resource are to be looked at anew; what else goes wrong is retried here,
/// so that a watch goes on where it broke off.
async fn watch<W: Watched>(context: &Context, client: Client, failures: &mut u32) -> Failure {
    let config = W::select(watcher::Config::default().page_size(PAGE), context);
    let mut events = pin!(watcher(W::api(client, context), config));
    let mut listing = true;
    loop {
        let event = if *failures > 0 && !listing {
            match timeout(QUIET, events.next()).await {
                Ok(event) => event,
                Err(_quiet) => {
                    *failures = 0;
                    context.update(|world| world.succeeded(W::WHAT));
                    continue;
                }
            }
        } else {
            events.next().await
        };
        match event {
            Some(Ok(event)) => {
                // A list that begins is only an intention, and one that is complete no watch yet.
                match event {
                    Event::Init | Event::InitApply(_) => listing = true,
                    Event::InitDone => listing = false,
                    Event::Apply(_) | Event::Delete(_) => *failures = 0,
                }
                take::<W>(context, event);
            }
            Some(Err(error)) => {
                let failure = Failure::from(error);
                let trouble = failure.trouble;
                match trouble {
                    Trouble::Unauthorized | Trouble::Forbidden | Trouble::NotServed | Trouble::Client => {
                        return failure;
                    }
                    Trouble::Unreachable | Trouble::Gone | Trouble::Refused => {
                        _ = told::<W>(context, failure);
                    }
                }
                context.pause(*failures, longest_pause(trouble)).await;
                *failures += 1;
            }
            None => return Failure { trouble: Trouble::Gone, message: "the watch ended".to_owned() },
        }
    }
}

/// Puts an event into its store.
fn take<W: Watched>(context: &Context, event: Event<W::Object>) {
    let read = |object| read::<W>(&context.reader, object);
    let event = match event {
        Event::Apply(object) => Event::Apply(read(object)),
        Event::Delete(object) => Event::Delete(read(object)),
        Event::InitApply(object) => Event::InitApply(read(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    };
    let recovers: fn(&mut World, &'static str) -> bool = match event {
        Event::Init | Event::InitApply(_) => |_, _| false,
        Event::InitDone => World::listed,
        Event::Apply(_) | Event::Delete(_) => World::succeeded,
    };
    context.update(|world| {
        let changed = W::store(world).take(event);
        if changed {
            world.changed_at.get_or_insert_with(Instant::now);
            world.absent.remove(W::WHAT);
        }
        let recovered = recovers(world, W::WHAT);
        if recovered {
            context.answers.notify_waiters();
        }
        changed || recovered
    });
}

fn read<W: Watched>(reader: &Reader, object: W::Object) -> (ObjectName, Read<W::Kept>) {
    let meta = object.meta();
    let name = ObjectName::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    );
    let read = match W::read(reader, object) {
        Ok(Some(kept)) => Read::Kept(kept),
        Ok(None) => Read::Passed,
        Err(Fault { field, message, remedy }) => {
            let remedy = format!("{remedy}; until then what the object last said stays in force");
            Read::Bad(Problem::refused(format!("{} {name}", W::KIND.word()), field, message, remedy))
        }
    };
    (name, read)
}

fn longest_pause(trouble: Trouble) -> Duration {
    match trouble {
        Trouble::Unreachable | Trouble::Gone => LONGEST_SILENCE,
        Trouble::Client
        | Trouble::Unauthorized
        | Trouble::Forbidden
        | Trouble::NotServed
        | Trouble::Refused => LONGEST_PAUSE,
    }
}

/// Between half and all of it, so that the agents of a cluster do not come all at once.
fn jittered(pause: Duration) -> Duration {
    // Its keys are random: the standard library has no other source of chance.
    let chance = RandomState::new().hash_one(0) as u32;
    pause.mul_f64(0.5 + f64::from(chance) / f64::from(u32::MAX) / 2.0)
}
