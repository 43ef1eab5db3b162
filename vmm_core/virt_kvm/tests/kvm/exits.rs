//! Guest accesses that reach the bus, and the ways a run ends.

use crate::machine::Access;
use crate::machine::Bus;
use crate::machine::Machine;
use crate::machine::Options;
use virt::VpStop;

/// `out DONE, al`.
const FINISH: [u8; 2] = [0xe6, 0xf4];

fn run(code: &[u8], answers: &[u64]) -> Vec<Access> {
    let mut machine = Machine::new(&[code, &FINISH, &[0xf4]].concat(), Options::default());
    let mut vp = machine.bsp();
    let bus = Bus::stopping(&*vp);
    bus.answers.lock().extend(answers.iter().rev());
    assert_eq!(vp.run(&bus).unwrap(), VpStop::Requested);
    bus.take()
}

#[test]
fn port_out_and_in() {
    let accesses = run(
        &[
            0xba, 0x34, 0x12, // mov dx, 0x1234
            0xb0, 0x5a, // mov al, 0x5a
            0xee, // out dx, al
            0xed, // in ax, dx
            0xe7, 0x40, // out 0x40+.., ax
            0x66, 0xef, // out dx, eax
        ],
        &[0xbeef],
    );
    assert_eq!(accesses[0], Access::PortWrite(0x1234, vec![0x5a]));
    assert_eq!(accesses[1], Access::PortRead(0x1234, 2));
    assert_eq!(
        accesses.last(),
        Some(&Access::PortWrite(0x1234, vec![0xef, 0xbe, 0, 0]))
    );
}
