//! A round: who plays in what, on which thread, and who is killed.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use greenloop::{
    sync::Event,
    testing::{self, Random, assert_nothing_left},
    thread,
};

use crate::{
    channels, locks, processes, streams, waits,
    watch::{Playing, step},
};

/// Scenes in a round.
const SCENES_MAX: usize = 12;

/// What a party does.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// One who plays.
pub(crate) struct Party {
    work: Work,
    /// It calls what is there on a hub alone.
    is_virtual: bool,
    /// It may be killed at any time.
    is_mortal: bool,
}

/// A party, on any thread. It may be killed if the scene is not calm.
pub(crate) fn party(work: impl FnOnce() + Send + 'static) -> Party {
    Party { work: Box::new(work), is_virtual: false, is_mortal: true }
}

impl Party {
    /// On a virtual thread only.
    pub(crate) fn on_a_hub(self) -> Party {
        Party { is_virtual: true, ..self }
    }

    /// Never killed.
    pub(crate) fn immortal(self) -> Party {
        Party { is_mortal: false, ..self }
    }
}

/// Makes the parties of a scene. The flag says whether it is calm: then all of them live.
pub(crate) type Scene = fn(&Random, bool) -> Vec<Party>;

pub(crate) const SCENES: &[(&str, Scene)] = &[
    ("locks", locks::locks),
    ("permits", locks::permits),
    ("ring", locks::ring),
    ("barrier", locks::barrier),
    ("once", locks::once),
    ("pipeline", channels::pipeline),
    ("crowd", channels::crowd),
    ("requests", channels::requests),
    ("selection", channels::selection),
    ("pipe", streams::pipe),
    ("echo", streams::echo),
    ("datagrams", streams::datagrams),
    ("shutdown", streams::shutdown),
    ("polls", waits::polls),
    ("closes", waits::closes),
    ("timeouts", waits::timeouts),
    ("children", processes::children),
    ("forks", processes::forks),
    ("families", processes::families),
    ("libraries", processes::libraries),
];

/// A stream of numbers of its own, for a party.
pub(crate) fn own(random: &Random) -> Random {
    Random::new(random.below(1 << 60) as u64)
}

/// A while, by chance: by calls of libc's, which cannot be unwound.
pub(crate) fn pause(random: &Random) {
    step();
    match random.below(6) {
        0..=2 => {}
        3 | 4 => std::thread::yield_now(),
        _ => std::thread::sleep(Duration::from_micros(random.below(300) as u64)),
    }
}

/// A while, by chance; one who was killed ends here, by an unwind.
pub(crate) fn mortal_pause(random: &Random) {
    match random.below(8) {
        0 => thread::yield_now(),
        1 => thread::sleep(Duration::from_micros(random.below(300) as u64)),
        _ => pause(random),
    }
}

/// A party with its place in a round.
struct Cast {
    work: Work,
    is_victim: bool,
    scene: usize,
}

impl Cast {
    fn play(self) {
        let _playing = Playing::new(self.scene);
        (self.work)();
    }
}

pub(crate) fn round(random: &Random) {
    if random.seed().is_multiple_of(3) {
        let seed = random.seed();
        testing::seeds(seed..seed + 1, |random| {
            let (mut hosts, _) = cast(random, 1, false);
            perform(hosts.remove(0), random, None);
        });
        return;
    }
    let (hosts, os_threads) = cast(random, 1 + random.below(3), true);
    let (gives, takes) = mpsc::channel();
    let own_random = own(random);
    let saboteur = std::thread::spawn(move || sabotage(&takes, &own_random));
    let start = |cast: Cast| std::thread::spawn(move || cast.play());
    let hubs: Vec<_> = hosts
        .into_iter()
        .map(|cast| {
            let (gives, random) = (gives.clone(), own(random));
            let run = move || greenloop::run(|| perform(cast, &random, Some(gives)));
            std::thread::spawn(run)
        })
        .collect();
    drop(gives);
    let os_threads: Vec<_> = os_threads.into_iter().map(start).collect();
    for thread in hubs.into_iter().chain(os_threads) {
        thread.join().unwrap();
    }
    saboteur.join().unwrap();
}

/// Draws scenes and gives each party a place: who plays on each hub, and who on OS threads.
fn cast(random: &Random, hubs: usize, with_os_threads: bool) -> (Vec<Vec<Cast>>, Vec<Cast>) {
    let mut hosts: Vec<Vec<Cast>> = (0..hubs).map(|_| Vec::new()).collect();
    let mut os_threads = Vec::new();
    for _ in 0..1 + random.below(SCENES_MAX) {
        let scene = random.below(SCENES.len());
        let is_calm = random.below(2) == 0;
        for party in SCENES[scene].1(random, is_calm) {
            let is_virtual = party.is_virtual || !with_os_threads || random.below(4) > 0;
            let is_victim = !is_calm && party.is_mortal && random.below(2) == 0;
            let cast = Cast { work: party.work, is_victim, scene };
            let host = if is_virtual { &mut hosts[random.below(hubs)] } else { &mut os_threads };
            host.insert(random.below(host.len() + 1), cast);
        }
    }
    (hosts, os_threads)
}

/// A victim, and whom to tell when it has ended.
struct Victim {
    thread: thread::JoinHandle<()>,
    ended: mpsc::Sender<()>,
    event: Arc<Event>,
}

/// On a hub's main greenlet: all who play there, from their beginning to their end.
fn perform(cast: Vec<Cast>, random: &Random, saboteur: Option<mpsc::Sender<Victim>>) {
    let (mut threads, mut victims, mut away) = (Vec::new(), Vec::new(), Vec::new());
    let (ended, ends) = mpsc::channel();
    for cast in cast {
        let (is_victim, name) = (cast.is_victim, SCENES[cast.scene].0);
        let builder = thread::Builder::new().name(name.into());
        let thread = builder.spawn(move || cast.play()).unwrap();
        match &saboteur {
            Some(saboteur) if is_victim && random.below(2) == 0 => {
                let event = Arc::new(Event::new());
                away.push(Arc::clone(&event));
                saboteur.send(Victim { thread, ended: ended.clone(), event }).unwrap();
            }
            _ if is_victim => victims.push(thread),
            _ => threads.push(thread),
        }
        if random.below(4) == 0 {
            greenloop::yield_now();
        }
    }
    // Once it has all of them, it waits for their ends.
    drop(saboteur);
    for victim in &victims {
        match random.below(3) {
            0 => {}
            1 => greenloop::yield_now(),
            _ => greenloop::sleep(Duration::from_micros(random.below(2000) as u64)),
        }
        victim.kill();
    }
    for thread in threads {
        thread.join().expect("nobody has killed it");
    }
    for victim in victims {
        end(victim);
    }
    // By a wait of this crate's, or by one of std's, in which the hub runs its virtual threads.
    drop(ended);
    if random.below(2) == 0 {
        assert_eq!(ends.iter().count(), away.len());
    }
    away.iter().for_each(|event| event.wait());
    assert_nothing_left();
}

/// Waits for one who was killed: it may have been done before, and it has not panicked.
fn end(victim: thread::JoinHandle<()>) {
    if let Err(payload) = victim.join() {
        assert!(payload.is::<greenloop::Killed>(), "a victim has panicked");
    }
}

/// Kills, on a thread that belongs to nobody, those who are sent.
fn sabotage(victims: &mpsc::Receiver<Victim>, random: &Random) {
    let mut killed = Vec::new();
    for victim in victims {
        if random.below(2) == 0 {
            pause(random);
        }
        victim.thread.kill();
        killed.push(victim);
    }
    for Victim { thread, ended, event } in killed {
        end(thread);
        event.set();
        // Its hub may wait for the event alone.
        let _ = ended.send(());
    }
}
