//! VPs, and their arrangement in sockets, cores and threads, which their APIC ids encode.

use std::fmt;

/// A VP's number: 0 is the boot processor.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VpIndex(pub u32);

impl VpIndex {
    /// The boot processor.
    pub const BSP: Self = Self(0);

    /// Whether this is the boot processor.
    pub fn is_bsp(self) -> bool {
        self == Self::BSP
    }
}

impl fmt::Display for VpIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VP {}", self.0)
    }
}

/// The topology asked for.
#[derive(Debug, Copy, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct TopologyConfig {
    /// The number of VPs.
    #[n(1)]
    pub processors: u32,
    /// VPs in a socket; all of them in one where `None`.
    #[n(2)]
    pub vps_per_socket: Option<u32>,
    /// Hardware threads in a core: 1 or 2.
    #[n(3)]
    pub threads_per_core: u32,
}

/// The largest number of VPs.
pub const MAX_PROCESSORS: u32 = 64;

/// Why a topology is impossible.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The processor count is out of range.
    #[error("{0} processors asked for; 1 to {MAX_PROCESSORS} are possible")]
    Processors(u32),
    /// Threads in a core.
    #[error("{0} threads in a core asked for; 1 or 2 are possible")]
    ThreadsPerCore(u32),
    /// VPs in a socket.
    #[error(
        "a socket cannot have {vps} VPs: 1 to {MAX_PROCESSORS} are possible, in whole cores (threads per core: {threads})"
    )]
    VpsPerSocket {
        /// VPs in a socket.
        vps: u32,
        /// Threads in a core.
        threads: u32,
    },
}

/// A VP's place in the topology.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct VpTopology {
    /// Its number.
    pub index: VpIndex,
    /// Its APIC id: socket, core and thread number in adjacent bit fields.
    pub apic_id: u32,
}

/// The VPs and their arrangement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    vps: Vec<VpTopology>,
    threads_per_core: u32,
    vps_per_socket: u32,
    smt_bits: u32,
    socket_bits: u32,
}

impl Topology {
    /// Arranges the VPs.
    pub fn new(config: TopologyConfig) -> Result<Self, TopologyError> {
        let TopologyConfig {
            processors,
            vps_per_socket,
            threads_per_core: threads,
        } = config;
        if !(1..=MAX_PROCESSORS).contains(&processors) {
            return Err(TopologyError::Processors(processors));
        }
        if !(1..=2).contains(&threads) {
            return Err(TopologyError::ThreadsPerCore(threads));
        }
        let per_socket = vps_per_socket.unwrap_or_else(|| processors.next_multiple_of(threads));
        if per_socket == 0 || !per_socket.is_multiple_of(threads) || per_socket > MAX_PROCESSORS {
            return Err(TopologyError::VpsPerSocket {
                vps: per_socket,
                threads,
            });
        }
        let smt_bits = threads.next_power_of_two().ilog2();
        let socket_bits = smt_bits + (per_socket / threads).next_power_of_two().ilog2();
        let vps = (0..processors)
            .map(|n| {
                let (socket, in_socket) = (n / per_socket, n % per_socket);
                let (core, thread) = (in_socket / threads, in_socket % threads);
                VpTopology {
                    index: VpIndex(n),
                    apic_id: socket << socket_bits | core << smt_bits | thread,
                }
            })
            .collect();
        Ok(Self {
            vps,
            threads_per_core: threads,
            vps_per_socket: per_socket,
            smt_bits,
            socket_bits,
        })
    }

    /// The VPs, in index order.
    pub fn vps(&self) -> &[VpTopology] {
        &self.vps
    }

    /// Hardware threads in a core.
    pub fn threads_per_core(&self) -> u32 {
        self.threads_per_core
    }

    /// VPs in a full socket.
    pub fn vps_per_socket(&self) -> u32 {
        self.vps_per_socket
    }

    /// The number of low bits of an APIC id that are the thread's number.
    pub fn smt_bits(&self) -> u32 {
        self.smt_bits
    }

    /// The number of low bits of an APIC id that are below the socket's number.
    pub fn socket_bits(&self) -> u32 {
        self.socket_bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apic_ids(processors: u32, vps_per_socket: Option<u32>, threads_per_core: u32) -> Vec<u32> {
        Topology::new(TopologyConfig {
            processors,
            vps_per_socket,
            threads_per_core,
        })
        .unwrap()
        .vps()
        .iter()
        .map(|vp| vp.apic_id)
        .collect()
    }

    #[test]
    fn apic_ids_are_bit_fields() {
        assert_eq!(apic_ids(1, None, 1), [0]);
        assert_eq!(apic_ids(4, None, 1), [0, 1, 2, 3]);
        // Sockets of three cores are numbered as if they had four.
        assert_eq!(apic_ids(6, Some(3), 1), [0, 1, 2, 4, 5, 6]);
        assert_eq!(apic_ids(4, Some(2), 2), [0, 1, 2, 3]);
        assert_eq!(apic_ids(64, None, 1).len(), 64);
    }

    #[test]
    fn apic_ids_are_unique() {
        for processors in 1..=64 {
            for (per_socket, threads) in [(None, 1), (None, 2), (Some(6), 2), (Some(5), 1)] {
                let mut ids = apic_ids(processors, per_socket, threads);
                ids.dedup();
                assert_eq!(ids.len(), processors as usize);
            }
        }
    }

    #[test]
    fn impossible_topologies_are_refused() {
        let new = |processors, vps_per_socket, threads_per_core| {
            Topology::new(TopologyConfig {
                processors,
                vps_per_socket,
                threads_per_core,
            })
        };
        assert_eq!(new(0, None, 1), Err(TopologyError::Processors(0)));
        assert_eq!(new(65, None, 1), Err(TopologyError::Processors(65)));
        assert_eq!(new(4, None, 3), Err(TopologyError::ThreadsPerCore(3)));
        assert!(matches!(
            new(4, Some(3), 2),
            Err(TopologyError::VpsPerSocket { .. })
        ));
        assert!(matches!(
            new(4, Some(0), 1),
            Err(TopologyError::VpsPerSocket { .. })
        ));
    }
}
