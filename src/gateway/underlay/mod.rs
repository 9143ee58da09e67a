//! The way to the other ends of tunnels: routes and neighbours.

pub mod neighbours;
pub mod routes;
