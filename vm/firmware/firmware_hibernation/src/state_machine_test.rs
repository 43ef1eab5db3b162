//! Every state with every input under every configuration, against a table.

use super::*;

/// Rows: states, inputs, configurations, next state, effects. The cells of the first three are patterns separated by
/// blanks, in which `*` stands for any text. In the next state, `=` is the state before, and `@` the image in the state
/// or the input. Every combination has to match exactly one row.
const TABLE: &str = "\
# A start probes the store anew in every state.
*                                | start/disabled/*                             | *                                | untracked       |
*                                | start/disabled+token/*                       | *                                | untracked       | say TokenIgnored
*                                | start/no-store/*                             | *                                | untracked       | say NoStore
*                                | start/none/*                                 | *                                | capturing/cold  |
*                                | start/1/- start/1/current                    | *                                | capturing/token | say NotPinned
*                                | start/max/-                                  | *                                | restoring       |
*                                | start/unusable/-                             | *                                | refused         |
*                                | start/corrupt/- start/corrupt/current        | *                                | capturing/cold  | say CorruptTokenIgnored
# With an override.
*                                | start/1/discard start/max/discard start/unusable/discard | *                                | discarding      |
*                                | start/corrupt/discard                        | *                                | discarding      |
*                                | start/max/current start/unusable/current     | *                                | waking/bare     | say CurrentFirmwareUsed
# The VM does not run.
off refused                      | on/*                                         | *                                | =               |
# Hibernation is off, or has no store.
untracked                        | on/s4                                        | *                                | off             | say HibernatedUntracked
untracked                        | on/s5 on/reset on/crash                      | *                                | off             |
untracked                        | on/discarded/* on/captured/* on/restored/* on/run on/pts* on/wak on/handoff | *                                | =               |
# Before the VPs run.
discarding                       | on/discarded/done                            | *                                | capturing/cold  |
discarding                       | on/discarded/failed                          | *                                | refused         |
discarding                       | on/captured/* on/restored/*                  | *                                | =               |
capturing/cold                   | on/captured/*                                | *                                | running/@       |
capturing/token                  | on/captured/*                                | *                                | waking/@        |
capturing/*                      | on/discarded/* on/restored/*                 | *                                | =               |
restoring                        | on/restored/done                             | *                                | waking/stored   |
restoring                        | on/restored/failed                           | *                                | refused         |
restoring                        | on/discarded/* on/captured/*                 | *                                | =               |
discarding capturing/* restoring | on/run on/pts* on/wak on/handoff             | *                                | =               |
discarding capturing/* restoring | on/s5 on/reset on/s4 on/crash                | *                                | off             |
# It runs, and there is no token. Linux runs _PTS and _WAK around making its image.
running/*                        | on/s5 on/reset                               | *                                | off             | clear
running/stored                   | on/s4                                        | *                                | off             | token Stored
running/bare                     | on/s4                                        | *                                | off             | token NotStored
running/*                        | on/crash                                     | *                                | off             |
running/stored                   | on/pts4                                      | *                                | =               | mark
running/bare                     | on/pts4                                      | *                                | =               |
running/*                        | on/run on/pts3 on/pts5 on/wak on/handoff     | *                                | =               |
running/*                        | on/discarded/* on/captured/* on/restored/*   | *                                | =               |
# It runs, and the token is still there: no operating system was seen.
waking/*                         | on/run                                       | at-start/*                       | running/@       | consume Start
waking/*                         | on/run                                       | handoff/* next-transition/*      | =               |
waking/*                         | on/wak                                       | handoff/* at-start/*             | running/@       | consume Wake
waking/*                         | on/wak                                       | next-transition/*                | taken/@         |
waking/*                         | on/handoff                                   | handoff/runtime at-start/runtime | running/@       | consume RuntimeHandoff
waking/*                         | on/handoff                                   | next-transition/runtime          | taken/@         |
waking/*                         | on/handoff                                   | */acpi                           | =               |
waking/*                         | on/pts3                                      | *                                | taken/@         |
waking/stored                    | on/pts4                                      | *                                | taken/@         | mark
waking/bare                      | on/pts4                                      | *                                | taken/@         |
waking/*                         | on/pts5                                      | handoff/* at-start/*             | =               |
waking/*                         | on/pts5                                      | next-transition/*                | taken/@         |
waking/*                         | on/s5 on/reset on/crash                      | *                                | off             | say TokenKept
waking/stored                    | on/s4                                        | */acpi                           | off             | token Stored
waking/bare                      | on/s4                                        | */acpi                           | off             | token NotStored
waking/*                         | on/s4                                        | */runtime                        | off             | say TokenKept
waking/*                         | on/discarded/* on/captured/* on/restored/*   | *                                | =               |
# The same after an operating system was seen: it makes a new image now.
taken/*                          | on/run                                       | at-start/*                       | running/@       | consume Start
taken/*                          | on/run                                       | handoff/* next-transition/*      | =               |
taken/stored                     | on/pts4                                      | *                                | =               | mark
taken/bare                       | on/pts4                                      | *                                | =               |
taken/*                          | on/wak on/handoff on/pts3 on/pts5            | *                                | =               |
taken/*                          | on/s5 on/reset                               | *                                | off             | clear
taken/stored                     | on/s4                                        | *                                | off             | token Stored
taken/bare                       | on/s4                                        | *                                | off             | token NotStored
taken/*                          | on/crash                                     | *                                | off             | say TokenKept
taken/*                          | on/discarded/* on/captured/* on/restored/*   | *                                | =               |
";

/// The rows of [`TABLE`], without comments.
fn rows() -> Vec<[&'static str; 5]> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            cells.try_into().unwrap()
        })
        .collect()
}

const IMAGES: [(ImageStatus, &str); 2] = [
    (ImageStatus::Stored, "stored"),
    (ImageStatus::NotStored, "bare"),
];

fn states() -> Vec<(HibernationState, String)> {
    let mut states = vec![
        (HibernationState::Off, "off".to_owned()),
        (HibernationState::Untracked, "untracked".into()),
        (HibernationState::Discarding, "discarding".into()),
        (
            HibernationState::Capturing {
                origin: Origin::Cold,
            },
            "capturing/cold".into(),
        ),
        (
            HibernationState::Capturing {
                origin: Origin::Token,
            },
            "capturing/token".into(),
        ),
        (HibernationState::Restoring, "restoring".into()),
        (HibernationState::Refused, "refused".into()),
    ];
    for (image, name) in IMAGES {
        states.push((
            HibernationState::Running { image },
            format!("running/{name}"),
        ));
        for (taken_over, word) in [(false, "waking"), (true, "taken")] {
            states.push((
                HibernationState::Waking { image, taken_over },
                format!("{word}/{name}"),
            ));
        }
    }
    states
}

fn events() -> Vec<(Input, String)> {
    let found = [
        (ProbeOutcome::Disabled { token: false }, "disabled"),
        (ProbeOutcome::Disabled { token: true }, "disabled+token"),
        (ProbeOutcome::NoStore, "no-store"),
        (ProbeOutcome::NotHibernated, "none"),
        (ProbeOutcome::NotStored, "1"),
        (ProbeOutcome::Stored, "max"),
        (ProbeOutcome::Unusable, "unusable"),
        (ProbeOutcome::CorruptToken, "corrupt"),
    ];
    let requested = [
        (None, "-"),
        (Some(Override::Discard), "discard"),
        (Some(Override::CurrentFirmware), "current"),
    ];
    let mut events = Vec::new();
    for (found, found_name) in found {
        for (requested, name) in requested {
            let event = Input::Start { found, requested };
            events.push((event, format!("start/{found_name}/{name}")));
        }
    }
    for (outcome, name) in [(Outcome::Done, "done"), (Outcome::Failed, "failed")] {
        events.push((Input::Discarded(outcome), format!("on/discarded/{name}")));
        events.push((Input::Restored(outcome), format!("on/restored/{name}")));
    }
    for (image, name) in IMAGES {
        events.push((Input::Captured(image), format!("on/captured/{name}")));
    }
    for (event, name) in [
        (Input::Run, "run"),
        (Input::Prepare(Sleep::Suspend), "pts3"),
        (Input::Prepare(Sleep::Hibernate), "pts4"),
        (Input::Prepare(Sleep::PowerOff), "pts5"),
        (Input::Wake, "wak"),
        (Input::RuntimeHandoff, "handoff"),
        (Input::PowerOff, "s5"),
        (Input::Reset, "reset"),
        (Input::Hibernate, "s4"),
        (Input::Crash, "crash"),
    ] {
        events.push((event, format!("on/{name}")));
    }
    events
}

fn matches(cell: &str, name: &str) -> bool {
    cell.split(' ')
        .any(|pattern| match pattern.split_once('*') {
            Some((start, end)) => {
                name.len() >= start.len() + end.len()
                    && name.starts_with(start)
                    && name.ends_with(end)
            }
            None => pattern == name,
        })
}

fn effect_name(effect: Effect) -> String {
    match effect {
        Effect::Say(message) => format!("say {message:?}"),
        Effect::MarkPreparing => "mark".into(),
        Effect::WriteToken(image) => format!("token {image:?}"),
        Effect::Consume(by) => format!("consume {by:?}"),
        Effect::ClearToken => "clear".into(),
    }
}

#[test]
fn every_state_and_event() {
    let states = states();
    let table = rows();
    let mut used = vec![false; table.len()];
    let mut checked = 0;
    for consume in ConsumePolicy::ALL {
        for (takeover, signal) in [
            (TakeoverSignal::AcpiWake, "acpi"),
            (TakeoverSignal::RuntimeHandoff, "runtime"),
        ] {
            let config = format!("{consume}/{signal}");
            for (state, state_name) in &states {
                for (event, event_name) in events() {
                    let place = format!("{state_name}, {event_name}, {config}");
                    let rows: Vec<_> = (0..table.len())
                        .filter(|i| {
                            let [s, e, c, ..] = table[*i];
                            matches(s, state_name) && matches(e, &event_name) && matches(c, &config)
                        })
                        .collect();
                    assert_eq!(rows.len(), 1, "{place}: rows {rows:?}");
                    used[rows[0]] = true;
                    let [.., next, effects] = table[rows[0]];
                    let image = [state_name.as_str(), &event_name]
                        .iter()
                        .find_map(|name| {
                            name.rsplit('/')
                                .next()
                                .filter(|i| ["stored", "bare"].contains(i))
                        })
                        .unwrap_or("no image");
                    let next = match next {
                        "=" => state_name.clone(),
                        next => next.replace('@', image),
                    };
                    let mut machine = StateMachine::in_state(consume, takeover, *state);
                    let did: Vec<_> = machine.handle(event).into_iter().map(effect_name).collect();
                    let found = &states
                        .iter()
                        .find(|(s, _)| *s == machine.state())
                        .unwrap()
                        .1;
                    assert_eq!(*found, next, "{place}");
                    assert_eq!(did.join(", "), effects, "{place}");
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 3 * 2 * 13 * (24 + 16));
    for (row, used) in table.iter().zip(used) {
        assert!(used, "no combination matches {row:?}");
    }
}

/// What must hold for any sequence of inputs, whatever the table says.
mod lives {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn effects_fit_the_input_that_causes_them(
            steps in proptest::collection::vec(0usize..40, 1..60),
            consume in 0usize..3,
            takeover in prop_oneof![Just(TakeoverSignal::AcpiWake), Just(TakeoverSignal::RuntimeHandoff)],
        ) {
            let events = events();
            let mut machine = StateMachine::new(ConsumePolicy::ALL[consume], takeover);
            for step in steps {
                let (event, _) = events[step];
                for effect in machine.handle(event) {
                    let fits = match effect {
                        Effect::MarkPreparing => event == Input::Prepare(Sleep::Hibernate),
                        Effect::WriteToken(_) => event == Input::Hibernate,
                        Effect::ClearToken => matches!(event, Input::PowerOff | Input::Reset),
                        Effect::Consume(_) => {
                            matches!(event, Input::Run | Input::Wake | Input::RuntimeHandoff)
                        }
                        Effect::Say(_) => true,
                    };
                    prop_assert!(fits, "{:?} because of {:?}", effect, event);
                }
            }
        }
    }
}
