//! The header of each frame (5.1.6), and the features (5.1.3) that determine its contents.

use crate::Offloads;

/// The header's length in bytes.
pub(crate) const LEN: u32 = 12;

/// The offset of `num_buffers`, the number of chains of a received frame.
pub(crate) const NUM_BUFFERS: u32 = 10;

/// The length of the largest frame before segmentation with its header: an IP packet of 65535 bytes and an Ethernet
/// header with a VLAN tag.
pub(crate) const MAX_LEN: u32 = LEN + 18 + 65535;

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const MTU: u64 = 1 << 3;
pub(crate) const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const GUEST_UFO: u64 = 1 << 10;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
const HOST_UFO: u64 = 1 << 14;
pub(crate) const MRG_RXBUF: u64 = 1 << 15;
pub(crate) const STATUS: u64 = 1 << 16;

/// Each offload with its features: for frames that the guest sends, and for frames that it receives.
fn pairs(offloads: Offloads) -> [(bool, u64, u64); 5] {
    [
        (offloads.checksum, CSUM, GUEST_CSUM),
        (offloads.tso4, HOST_TSO4, GUEST_TSO4),
        (offloads.tso6, HOST_TSO6, GUEST_TSO6),
        (offloads.ecn, HOST_ECN, GUEST_ECN),
        (offloads.ufo, HOST_UFO, GUEST_UFO),
    ]
}

/// The features to offer for the offloads of the backend.
pub(crate) fn features(offloads: Offloads) -> u64 {
    pairs(offloads)
        .into_iter()
        .filter(|(offered, _, _)| *offered)
        .fold(0, |features, (_, host, guest)| features | host | guest)
}

/// The offloads that a guest accepts with the negotiated `features`.
pub(crate) fn guest_offloads(features: u64) -> Offloads {
    let checksum = features & GUEST_CSUM != 0;
    // The others require CSUM (5.1.3.1); a driver that violates that gets none.
    let with_checksum = |feature| checksum && features & feature != 0;
    Offloads {
        checksum,
        tso4: with_checksum(GUEST_TSO4),
        tso6: with_checksum(GUEST_TSO6),
        ecn: with_checksum(GUEST_ECN),
        ufo: with_checksum(GUEST_UFO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_map_to_features_and_back() {
        let all = Offloads {
            checksum: true,
            tso4: true,
            tso6: true,
            ecn: true,
            ufo: true,
        };
        assert_eq!(guest_offloads(features(all)), all);
        assert_eq!(features(Offloads::NONE), 0);
        assert_eq!(guest_offloads(features(all) & !GUEST_CSUM), Offloads::NONE);
    }
}
