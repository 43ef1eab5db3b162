use crate::routes::RangeRoutes;
use crate::routes::Routes;
use arc_swap::ArcSwap;
use chipset_device::Claims;
use chipset_device::Decodes;
use parking_lot::Mutex;
use std::ops::RangeInclusive;

/// The routes of now, made anew whenever a device decodes other addresses.
///
/// The lock in here is the last one that any thread takes: devices change what they decode while they are
/// locked themselves.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    /// Replaced as a whole; readers never wait.
    current: ArcSwap<Routes>,
    sources: Mutex<Sources>,
}

/// What the routes are made of, by the index of the device.
#[derive(Debug, Default)]
struct Sources {
    /// None until the chipset is built.
    claims: Option<Vec<Claims>>,
    decodes: Vec<Decodes>,
}

impl RouteTable {
    pub(crate) fn port(&self, port: u16) -> Option<usize> {
        self.current.load().ports.find(port)
    }

    pub(crate) fn mmio(&self, gpa: u64) -> Option<usize> {
        self.current.load().mmio.find(gpa)
    }

    /// Routes what devices claim from now on, and what they decode.
    pub(crate) fn connect(&self, claims: Vec<Claims>) {
        let mut sources = self.sources.lock();
        sources.claims = Some(claims);
        self.update(&sources);
    }

    /// Replaces what the device decodes.
    pub(crate) fn set_decodes(&self, device: usize, decodes: Decodes) {
        let mut sources = self.sources.lock();
        if sources.decodes.len() <= device {
            sources.decodes.resize_with(device + 1, Decodes::default);
        }
        if sources.decodes[device] != decodes {
            sources.decodes[device] = decodes;
            self.update(&sources);
        }
    }

    fn update(&self, sources: &Sources) {
        if let Some(claims) = &sources.claims {
            let decodes = &sources.decodes;
            let ports = in_order_of_precedence(claims, |c| &c.ports, decodes, |d| &d.ports);
            let mmio = in_order_of_precedence(claims, |c| &c.mmio, decodes, |d| &d.mmio);
            self.current.store(
                Routes {
                    ports: RangeRoutes::new(ports),
                    mmio: RangeRoutes::new(mmio),
                }
                .into(),
            );
        }
    }
}

/// All claims, then what devices decode in the order they were added.
fn in_order_of_precedence<A: Clone>(
    claims: &[Claims],
    claimed: impl Fn(&Claims) -> &Vec<RangeInclusive<A>>,
    decodes: &[Decodes],
    decoded: impl Fn(&Decodes) -> &Vec<RangeInclusive<A>>,
) -> Vec<(RangeInclusive<A>, usize)> {
    let claims = claims.iter().map(claimed).enumerate();
    let decodes = decodes.iter().map(decoded).enumerate();
    claims
        .chain(decodes)
        .flat_map(|(device, ranges)| ranges.iter().map(move |range| (range.clone(), device)))
        .collect()
}
