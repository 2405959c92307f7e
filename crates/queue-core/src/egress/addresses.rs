//! Which addresses nobody is sent to: everything that is not the public internet, unless an operator allows its network.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => prefix_of_4(base, self.bits) == prefix_of_4(address, self.bits),
            (IpAddr::V6(base), IpAddr::V6(address)) => prefix_of_6(base, self.bits) == prefix_of_6(address, self.bits),
            _ => false,
        }
    }
}

fn prefix_of_4(address: Ipv4Addr, bits: u8) -> u32 {
    address.to_bits().checked_shr(32 - u32::from(bits)).unwrap_or_default()
}

fn prefix_of_6(address: Ipv6Addr, bits: u8) -> u128 {
    address.to_bits().checked_shr(128 - u32::from(bits)).unwrap_or_default()
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network such as 10.0.0.0/8 or fd00::/8");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
        Ok(Self { base, bits })
    }
}

/// Where clouds hand out the credentials of the machine that asks. No network that is allowed allows these.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // A public address that every machine at Azure reaches its own host at.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Networks of IPv4 that are not the public internet (IANA's special-purpose registry), and what they are.
const NOT_PUBLIC_4: [([u8; 4], u8, &str); 16] = [
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "behind a carrier's NAT"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([192, 31, 196, 0], 24, "reserved"),
    ([192, 88, 99, 0], 24, "a 6to4 relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// Networks within IPv6's global unicast (2000::/3) that are not the public internet, or that carry an address of IPv4.
const NOT_PUBLIC_6: [([u16; 3], u8, &str); 4] = [
    ([0x2001, 0, 0], 23, "a tunnel or reserved"),
    ([0x2001, 0x0db8, 0], 32, "documentation"),
    ([0x2002, 0, 0], 16, "6to4, an IPv4 address in disguise"),
    ([0x3fff, 0, 0], 20, "documentation"),
];

/// Names of what lies outside global unicast, for the error only: all of it is refused.
const OUTSIDE_6: [([u16; 3], u8, &str); 5] = [
    ([0x0064, 0xff9b, 0], 32, "NAT64, an IPv4 address in disguise"),
    ([0xfc00, 0, 0], 7, "private"),
    ([0xfe80, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0], 10, "private"),
    ([0xff00, 0, 0], 8, "multicast"),
];

/// Why nobody is sent to this address; `None`: it is public, or in a network that is allowed.
pub(super) fn refusal(address: IpAddr, allowed: &[Network]) -> Option<&'static str> {
    let is_allowed = |address: IpAddr| allowed.iter().any(|network| network.contains(address));
    let inner = inner_of(address);
    if METADATA.contains(&address) || inner.is_some_and(|inner| METADATA.contains(&inner.into())) {
        return Some("where a cloud keeps its credentials");
    }
    if is_allowed(address) {
        // Whoever allows a network of disguises does not allow whatever hides in it.
        let hidden = inner.filter(|inner| !is_allowed((*inner).into()));
        return hidden.and_then(|inner| refusal(inner.into(), allowed));
    }
    match address {
        IpAddr::V4(address) => first(&NOT_PUBLIC_4, |(base, bits)| {
            Network { base: Ipv4Addr::from(base).into(), bits }.contains(address.into())
        }),
        IpAddr::V6(address) => refusal_of_6(address),
    }
}

/// The address of IPv4 that an address of IPv6 stands for: mapped or compatible, NAT64, 6to4.
fn inner_of(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, _, _, _, g, h] = address.segments();
    match (a, b) {
        // ::1 and :: are IPv6's own.
        (0, 0) if address.segments()[..5] == [0; 5] && address.to_bits() > 1 => {}
        (0x0064, 0xff9b) => {}
        (0x2002, _) => return Some(Ipv4Addr::from_bits(u32::from(b) << 16 | u32::from(c))),
        _ => return None,
    }
    Some(Ipv4Addr::from_bits(u32::from(g) << 16 | u32::from(h)))
}

fn refusal_of_6(address: Ipv6Addr) -> Option<&'static str> {
    let holds = |([a, b, c], bits): ([u16; 3], u8)| {
        Network { base: Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into(), bits }.contains(address.into())
    };
    if address.segments()[0] & 0xe000 == 0x2000 {
        return first(&NOT_PUBLIC_6, holds);
    }
    Some(match address {
        Ipv6Addr::UNSPECIFIED => "unspecified",
        Ipv6Addr::LOCALHOST => "loopback",
        // ::a.b.c.d and ::ffff:a.b.c.d: another way to write an address of IPv4, and none that a server has.
        _ if address.segments()[..5] == [0; 5] => "an IPv4 address in disguise",
        _ => first(&OUTSIDE_6, holds).unwrap_or("not public"),
    })
}

fn first<B: Copy>(networks: &[(B, u8, &'static str)], holds: impl Fn((B, u8)) -> bool) -> Option<&'static str> {
    networks.iter().find(|(base, bits, _)| holds((*base, *bits))).map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, allowed: &[&str]) -> Option<&'static str> {
        let allowed: Vec<Network> = allowed.iter().map(|network| network.parse().unwrap()).collect();
        refusal(text.parse().unwrap(), &allowed)
    }

    #[test]
    fn what_is_public_is_let_through_and_nothing_else() {
        for public in
            ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"]
        {
            assert_eq!(refused(public, &[]), None, "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:1.1.1.1",
            "::ffff:127.0.0.1",
            "::1.1.1.1",
            "64:ff9b::1.1.1.1",
            "64:ff9b:1::1",
            "2002:0101:0101::1",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
            "3fff::1",
            "168.63.129.16",
        ] {
            assert!(refused(private, &[]).is_some(), "{private}");
        }
    }

    #[test]
    fn an_allowed_network_is_let_through_without_its_metadata() {
        assert_eq!(refused("10.1.2.3", &["10.0.0.0/8"]), None);
        assert_eq!(refused("11.1.2.3", &["10.0.0.0/8"]), None, "public anyway");
        assert!(refused("192.168.0.1", &["10.0.0.0/8"]).is_some());
        assert_eq!(refused("fd00::1", &["fd00::/8"]), None);
        assert_eq!(refused("127.0.0.1", &["0.0.0.0/0"]), None);
        assert_eq!(refused("::1", &["::/0"]), None);
        for metadata in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"] {
            assert!(refused(metadata, &["0.0.0.0/0", "::/0"]).is_some(), "{metadata}");
        }
        for (disguise, network) in [
            ("64:ff9b::a9fe:a9fe", "64:ff9b::/96"),
            ("64:ff9b::a00:5", "64:ff9b::/96"),
            ("::ffff:169.254.169.254", "::/0"),
            ("2002:7f00:1::", "2002::/16"),
        ] {
            assert!(refused(disguise, &[network]).is_some(), "{disguise}");
        }
        assert_eq!(refused("64:ff9b::101:101", &["64:ff9b::/96"]), None);
        assert_eq!(refused("64:ff9b::a00:5", &["64:ff9b::/96", "10.0.0.0/8"]), None);
        // The disguised form of an allowed address is not the allowed address.
        assert!(refused("::ffff:10.0.0.1", &["10.0.0.0/8"]).is_some());
    }

    #[test]
    fn a_network_is_read_strictly() {
        for wrong in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/-1", "", "10.0.0/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
