//! Routes: tables of prefixes, of which the longest that matches decides (RFC 1812 §5.2.4.3), and of several ways there the one
//! with the lowest metric.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Routes in all tables together at most.
pub const ROUTES_MAX: usize = 1 << 20;

/// The table that is meant where none is named.
pub const MAIN: u32 = 254;

/// A way to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub prefix: IpNet,
    /// The next hop; `None` if the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The port that it leaves by.
    pub port: u32,
    /// Which of our addresses packets have that choose none.
    pub source: Option<IpAddr>,
    /// Of several routes for a prefix, the one with the lowest counts.
    pub metric: u32,
}

/// Why a route was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The next hop or the source is of the other IP version.
    #[error("{0}: not an address of the same IP version as the prefix")]
    Version(&'static str),
    /// The prefix has bits set behind its length.
    #[error("prefix: bits are set behind its length")]
    HostBits,
    /// The next hop is no address that a host can have.
    #[error("via: not the address of a host")]
    Via,
    /// The same table has a route for this prefix with this metric.
    #[error("there is a route for {0} with this metric")]
    Exists(IpNet),
    /// [`ROUTES_MAX`] routes exist.
    #[error("no more than {ROUTES_MAX} routes")]
    TooMany,
}

/// Routes for one prefix, lowest metric first.
type Ways = Vec<Route>;

#[derive(Clone, Debug, Default)]
struct Table {
    v4: PrefixMap<Ipv4Net, Ways>,
    v6: PrefixMap<Ipv6Net, Ways>,
}

impl Table {
    fn ways_mut(&mut self, prefix: IpNet) -> Option<&mut Ways> {
        match prefix {
            IpNet::V4(prefix) => self.v4.get_mut(&prefix),
            IpNet::V6(prefix) => self.v6.get_mut(&prefix),
        }
    }

    fn insert(&mut self, prefix: IpNet, ways: Ways) {
        match prefix {
            IpNet::V4(prefix) => drop(self.v4.insert(prefix, ways)),
            IpNet::V6(prefix) => drop(self.v6.insert(prefix, ways)),
        }
    }

    fn remove(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(prefix) => drop(self.v4.remove(&prefix)),
            IpNet::V6(prefix) => drop(self.v6.remove(&prefix)),
        }
    }

    fn lookup(&self, to: IpAddr) -> Option<&Route> {
        let ways = match to {
            IpAddr::V4(to) => self.v4.get_lpm(&Ipv4Net::from(to))?.1,
            IpAddr::V6(to) => self.v6.get_lpm(&Ipv6Net::from(to))?.1,
        };
        ways.first()
    }

    fn iter(&self) -> impl Iterator<Item = &Route> {
        self.v4.iter().map(|(_, ways)| ways).chain(self.v6.iter().map(|(_, ways)| ways)).flatten()
    }
}

/// All routing tables.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    tables: BTreeMap<u32, Table>,
    count: usize,
}

/// True for an address that a host can have: not unspecified, not a group, not broadcast.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a != Ipv4Addr::UNSPECIFIED && !a.is_multicast() && !a.is_broadcast(),
        IpAddr::V6(a) => a != Ipv6Addr::UNSPECIFIED && !a.is_multicast(),
    }
}

impl Routes {
    /// Adds a route to a table.
    ///
    /// # Errors
    /// See [`RouteError`]; nothing is changed then.
    pub fn add(&mut self, table: u32, route: Route) -> Result<(), RouteError> {
        let is_v4 = route.prefix.addr().is_ipv4();
        for (field, address) in [("via", route.via), ("source", route.source)] {
            if address.is_some_and(|address| address.is_ipv4() != is_v4) {
                return Err(RouteError::Version(field));
            }
        }
        if route.prefix != route.prefix.trunc() {
            return Err(RouteError::HostBits);
        }
        if route.via.is_some_and(|via| !is_host(via)) {
            return Err(RouteError::Via);
        }
        if self.count >= ROUTES_MAX {
            return Err(RouteError::TooMany);
        }
        let table = self.tables.entry(table).or_default();
        match table.ways_mut(route.prefix) {
            Some(ways) => {
                let at = ways.binary_search_by_key(&route.metric, |way| way.metric);
                let Err(at) = at else { return Err(RouteError::Exists(route.prefix)) };
                ways.insert(at, route);
            }
            None => table.insert(route.prefix, vec![route]),
        }
        self.count += 1;
        Ok(())
    }

    /// Removes the route for `prefix` with this metric; without one, that with the lowest.
    pub fn remove(&mut self, table: u32, prefix: IpNet, metric: Option<u32>) -> Option<Route> {
        let routes = self.tables.get_mut(&table)?;
        let ways = routes.ways_mut(prefix)?;
        let at = ways.iter().position(|way| metric.is_none_or(|metric| way.metric == metric))?;
        let route = ways.remove(at);
        if ways.is_empty() {
            routes.remove(prefix);
        }
        self.count -= 1;
        Some(route)
    }

    /// Removes every route that leaves by `port`; returns how many there were.
    pub fn remove_port(&mut self, port: u32) -> usize {
        let gone: Vec<(u32, Route)> =
            self.iter().filter(|(_, route)| route.port == port).map(|(table, route)| (table, *route)).collect();
        for (table, route) in &gone {
            self.remove(*table, route.prefix, Some(route.metric));
        }
        gone.len()
    }

    /// The route to `to` of the first of `tables` that has one.
    pub fn lookup(&self, tables: &[u32], to: IpAddr) -> Option<&Route> {
        tables.iter().find_map(|table| self.tables.get(table)?.lookup(to))
    }

    /// All routes with their tables: table by table, prefix by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Route)> {
        self.tables.iter().flat_map(|(number, table)| table.iter().map(|route| (*number, route)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(prefix: &str, port: u32, metric: u32) -> Route {
        Route { prefix: prefix.parse().unwrap(), via: None, port, source: None, metric }
    }

    #[test]
    fn longest_prefix_then_lowest_metric_then_first_table() {
        let mut routes = Routes::default();
        for (table, route) in [
            (MAIN, route("0.0.0.0/0", 1, 0)),
            (MAIN, route("10.0.0.0/8", 2, 20)),
            (MAIN, route("10.0.0.0/8", 3, 10)),
            (MAIN, route("10.1.0.0/16", 4, 500)),
            (7, route("10.1.2.0/24", 5, 0)),
            (MAIN, route("::/0", 6, 0)),
        ] {
            routes.add(table, route).unwrap();
        }
        let port = |tables: &[u32], to: &str| routes.lookup(tables, to.parse().unwrap()).map(|route| route.port);
        assert_eq!(port(&[MAIN], "192.0.2.1"), Some(1));
        assert_eq!(port(&[MAIN], "10.9.9.9"), Some(3));
        assert_eq!(port(&[MAIN], "10.1.2.3"), Some(4));
        assert_eq!(port(&[7, MAIN], "10.1.2.3"), Some(5));
        assert_eq!(port(&[7, MAIN], "10.1.3.3"), Some(4));
        assert_eq!(port(&[7], "10.1.3.3"), None);
        assert_eq!(port(&[MAIN], "2001:db8::1"), Some(6));
        assert_eq!((routes.len(), routes.iter().count()), (6, 6));
        assert_eq!(routes.remove(MAIN, "10.0.0.0/8".parse().unwrap(), None).unwrap().port, 3);
        let port = |to: &str| routes.lookup(&[MAIN], to.parse().unwrap()).map(|route| route.port);
        assert_eq!(port("10.9.9.9"), Some(2));
    }

    #[test]
    fn what_is_no_route_is_refused_by_the_field() {
        let mut routes = Routes::default();
        let refused = |routes: &mut Routes, route: Route| routes.add(MAIN, route).unwrap_err().to_string();
        let good = route("10.0.0.0/8", 1, 0);
        let with_via = |via: &str| Route { via: Some(via.parse().unwrap()), ..good };
        assert_eq!(
            refused(&mut routes, with_via("2001:db8::1")),
            "via: not an address of the same IP version as the prefix"
        );
        assert_eq!(refused(&mut routes, with_via("224.0.0.1")), "via: not the address of a host");
        assert_eq!(refused(&mut routes, route("10.0.0.1/8", 1, 0)), "prefix: bits are set behind its length");
        let source = Route { source: Some("::1".parse().unwrap()), ..good };
        assert!(refused(&mut routes, source).starts_with("source: "));
        assert!(routes.is_empty());
        routes.add(MAIN, good).unwrap();
        assert_eq!(refused(&mut routes, good), "there is a route for 10.0.0.0/8 with this metric");
        routes.add(MAIN, Route { metric: 1, port: 2, ..good }).unwrap();
        routes.add(9, Route { port: 2, ..good }).unwrap();
        assert_eq!((routes.remove_port(2), routes.len()), (2, 1));
    }

    proptest! {
        #[test]
        fn lookup_finds_what_a_walk_over_all_routes_finds(
            prefixes in proptest::collection::vec((any::<[u8; 4]>(), 0u8..=32, 0u32..3), 0..60),
            to in any::<[u8; 4]>(),
        ) {
            let mut routes = Routes::default();
            let mut all: Vec<Route> = Vec::new();
            for (at, (address, len, metric)) in prefixes.into_iter().enumerate() {
                // Few different addresses, so that prefixes contain one another.
                let prefix = IpNet::new(address.map(|byte| byte & 0x81).into(), len).unwrap().trunc();
                let route = Route { prefix, via: None, port: at as u32, source: None, metric };
                if routes.add(MAIN, route).is_ok() {
                    all.push(route);
                }
            }
            let to = IpAddr::from(to.map(|byte| byte & 0x81));
            let matching = all.iter().filter(|route| route.prefix.contains(&to));
            let best = matching.min_by_key(|route| (32 - route.prefix.prefix_len(), route.metric));
            prop_assert_eq!(routes.lookup(&[MAIN], to), best);
        }
    }
}
