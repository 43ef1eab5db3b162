use super::*;
use crate::VmTimer;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

#[test]
fn time_passes_only_while_started() {
    let clock = VmClock::new();
    assert_eq!(clock.now(), VmInstant::ZERO);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(clock.now(), VmInstant::ZERO);
    clock.start();
    while clock.now() == VmInstant::ZERO {}
    clock.stop();
    let stopped = clock.now();
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(clock.now(), stopped);
    clock.start();
    assert!(clock.now() >= stopped);
}

#[test]
fn time_can_be_set_while_stopped() {
    let clock = VmClock::new();
    clock.set(VmInstant::from_nanos(1 << 40));
    assert_eq!(clock.now().as_nanos(), 1 << 40);
    clock.start();
    assert!(clock.now().as_nanos() >= 1 << 40);
}

#[test]
fn no_thread_is_spawned_without_a_timer() {
    let clock = VmClock::new();
    clock.start();
    let _timer = clock.new_timer(|| ());
    assert!(clock.0.shared.state.lock().service == Service::NotSpawned);
}

#[test]
fn a_timer_fires_on_the_service_thread() {
    let clock = VmClock::new();
    let (send, receive) = mpsc::channel();
    let this = clock.clone();
    let timer = clock.new_timer(move || {
        let _ = send.send((this.now(), std::thread::current().id()));
    });
    let deadline = VmInstant::from_nanos(3_000_000);
    timer.arm(deadline);
    clock.start();
    let (fired, thread) = receive.recv().unwrap();
    assert!(fired >= deadline);
    assert_ne!(thread, std::thread::current().id());
    // Armed again, with a deadline in the past.
    timer.arm(VmInstant::ZERO);
    receive.recv().unwrap();
}

#[test]
fn a_timer_armed_later_with_an_earlier_deadline_fires_first() {
    let clock = VmClock::new();
    clock.start();
    let (send, receive) = mpsc::channel();
    let late = clock.new_timer(|| ());
    late.arm(VmInstant::MAX);
    let early = clock.new_timer(move || {
        let _ = send.send(());
    });
    early.arm(clock.now().saturating_add(Duration::from_millis(1)));
    receive.recv().unwrap();
}

#[test]
fn nothing_fires_while_stopped() {
    let clock = VmClock::new();
    clock.start();
    let count = Arc::new(AtomicUsize::new(0));
    let timer = {
        let count = count.clone();
        clock.new_timer(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
    };
    for _ in 0..200 {
        timer.arm(clock.now().saturating_add(Duration::from_micros(20)));
        std::thread::yield_now();
        clock.stop();
        let before = count.load(Ordering::SeqCst);
        std::thread::yield_now();
        assert_eq!(count.load(Ordering::SeqCst), before);
        clock.start();
    }
}

#[test]
fn stop_from_a_callback_does_not_deadlock() {
    let clock = VmClock::new();
    let (send, receive) = mpsc::channel();
    let timer = {
        let stopped = clock.clone();
        clock.new_timer(move || {
            stopped.stop();
            let _ = send.send(());
        })
    };
    timer.arm(VmInstant::ZERO);
    clock.start();
    receive.recv().unwrap();
    assert!(!clock.is_running());
}

#[test]
fn stop_waits_for_a_callback() {
    let clock = VmClock::new();
    let (begun, wait_begun) = mpsc::channel();
    let done = Arc::new(AtomicUsize::new(0));
    let timer = {
        let done = done.clone();
        clock.new_timer(move || {
            let _ = begun.send(());
            std::thread::sleep(Duration::from_millis(20));
            done.store(1, Ordering::SeqCst);
        })
    };
    timer.arm(VmInstant::ZERO);
    clock.start();
    wait_begun.recv().unwrap();
    clock.stop();
    assert_eq!(done.load(Ordering::SeqCst), 1);
}

#[test]
fn a_manual_clock_fires_in_order_and_at_the_deadlines() {
    let (clock, time) = VmClock::manual();
    let log = Arc::new(Mutex::new(Vec::new()));
    let timers: Vec<_> = [("b", 20), ("a", 10), ("c", 40)]
        .into_iter()
        .map(|(name, at)| {
            let (log, now) = (log.clone(), clock.clone());
            let timer = clock.new_timer(move || {
                log.lock().push((name, now.now().as_nanos()));
            });
            timer.arm(VmInstant::from_nanos(at));
            timer
        })
        .collect();
    time.advance(Duration::from_nanos(100));
    assert_eq!(clock.now(), VmInstant::ZERO, "stopped");
    clock.start();
    time.advance(Duration::from_nanos(30));
    assert_eq!(*log.lock(), [("a", 10), ("b", 20)]);
    timers[2].disarm();
    time.advance(Duration::from_nanos(30));
    assert_eq!(log.lock().len(), 2);
    assert_eq!(clock.now().as_nanos(), 60);
}

#[test]
fn a_callback_may_arm_its_own_timer() {
    let (clock, time) = VmClock::manual();
    clock.start();
    let slot: Arc<Mutex<Option<VmTimer>>> = Arc::default();
    let count = Arc::new(AtomicUsize::new(0));
    let timer = {
        let (slot, count, now) = (Arc::downgrade(&slot), count.clone(), clock.clone());
        clock.new_timer(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let next = now.now().saturating_add(Duration::from_nanos(10));
            if let Some(timer) = slot.upgrade()
                && let Some(timer) = &*timer.lock()
            {
                timer.arm(next);
            }
        })
    };
    timer.arm(VmInstant::from_nanos(10));
    *slot.lock() = Some(timer);
    time.advance(Duration::from_nanos(100));
    assert_eq!(count.load(Ordering::SeqCst), 10);
}

#[test]
fn the_service_thread_ends_with_the_clock() {
    let clock = VmClock::new();
    clock.start();
    let timer = clock.new_timer(|| ());
    timer.arm(VmInstant::MAX);
    let shared = Arc::downgrade(&clock.0.shared);
    drop((clock, timer));
    while shared.strong_count() > 0 {
        std::thread::yield_now();
    }
}
