//! What `config` says of the external side. A gateway with rows and without it drops what it cannot
//! send on, so `config` says that there is one only while all that makes it is in place: last when
//! it comes, no more before any of it goes.

use gateway_common::tables::{CONFIG_OWNER, CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_TO_EXTERNAL, Config};

/// The same without an external side.
pub fn without_external_side(config: Config) -> Config {
    let flags = CONFIG_OWNER | CONFIG_XDP_TO_EXTERNAL | CONFIG_XDP_PIECES_TO_EXTERNAL;
    Config {
        flags: config.flags & !flags,
        external_ifindex: 0,
        external_mtu: 0,
        router_port_ifindex: 0,
        ..config
    }
}

/// `held`, which has none, with that of `wanted`.
pub fn with_external_side(held: Config, wanted: &Config) -> Config {
    Config {
        flags: held.flags | wanted.flags,
        external_ifindex: wanted.external_ifindex,
        external_mtu: wanted.external_mtu,
        router_port_ifindex: wanted.router_port_ifindex,
        ..held
    }
}

/// Whether both have the external side, and the same one: NIC, router port and MAC.
pub fn share_external_side(a: &Config, b: &Config) -> bool {
    let side = |config: &Config| {
        (config.external_ifindex, config.router_port_ifindex, config.nic_mac, config.flags & CONFIG_OWNER)
    };
    has_external_side(a) && side(a) == side(b)
}

/// Whether it has all of one.
pub fn has_external_side(config: &Config) -> bool {
    config.flags & CONFIG_OWNER != 0 && config.external_ifindex != 0 && config.router_port_ifindex != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Config {
        Config {
            flags: CONFIG_OWNER | CONFIG_XDP_TO_EXTERNAL,
            external_ifindex: 3,
            external_mtu: 1500,
            router_port_ifindex: 9,
            underlay_ifindex: 2,
            nic_mac: [2; 6],
            ..Config::default()
        }
    }

    #[test]
    fn nothing_of_the_side_is_left_and_all_of_the_rest() {
        let without = without_external_side(owner());
        assert_eq!(without, Config { underlay_ifindex: 2, nic_mac: [2; 6], ..Config::default() });
        assert!(has_external_side(&owner()) && !has_external_side(&without));
        assert_eq!(with_external_side(without, &owner()), owner());
    }

    #[test]
    fn another_nic_port_or_mac_is_another_side() {
        let other_flags = owner().flags | CONFIG_XDP_PIECES_TO_EXTERNAL;
        for (what, other, shared) in [
            ("the same", owner(), true),
            ("another MTU", Config { external_mtu: 9000, flags: other_flags, ..owner() }, true),
            ("another NIC", Config { external_ifindex: 4, ..owner() }, false),
            ("another router port", Config { router_port_ifindex: 10, ..owner() }, false),
            ("no router port yet", Config { router_port_ifindex: 0, ..owner() }, false),
            ("another MAC", Config { nic_mac: [4; 6], ..owner() }, false),
            ("none", without_external_side(owner()), false),
        ] {
            assert_eq!(share_external_side(&owner(), &other), shared, "{what}");
            assert_eq!(share_external_side(&other, &owner()), shared, "{what}");
        }
        let none = without_external_side(owner());
        assert!(!share_external_side(&none, &none));
    }
}
