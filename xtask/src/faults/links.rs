//! The network between the processes of a role and a store, with a proxy in it that makes bad weather.

use std::fmt;

use anyhow::{Context, Result};
use testkit::{TcpProxy, Weather};

use super::{
    history::Store,
    scenario::{Scenario, Trouble},
};
use crate::cluster::Role;

/// Whose connections to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The processes.
    pub(crate) role: Role,
    /// Only the first of them.
    pub(crate) first: bool,
    /// What they are connected to.
    pub(crate) store: Store,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = if self.first { "first " } else { "" };
        write!(f, "{first}{} to {:?}", self.role, self.store)
    }
}

/// A proxy for each link to which a scenario does something; the others are direct.
pub(crate) struct Links(Vec<(Link, TcpProxy)>);

impl Links {
    /// Starts them in front of stores that listen on these ports of 127.0.0.1.
    pub(crate) async fn start(scenario: &Scenario, redis: u16, postgres: u16) -> Result<Self> {
        let mut links: Vec<(Link, TcpProxy)> = Vec::new();
        for (_, trouble) in scenario.troubles {
            let (Trouble::Network(link, ..) | Trouble::CutAndFlush(link, _)) = *trouble else { continue };
            if links.iter().any(|(known, _)| *known == link) {
                continue;
            }
            let port = match link.store {
                Store::Redis => redis,
                Store::Postgres => postgres,
            };
            links.push((link, TcpProxy::start(port).await.context("a proxy does not start")?));
        }
        Ok(Self(links))
    }

    /// A store's URL as a process of a role, the first or another, is to use it.
    pub(crate) fn url(&self, of: Link, direct: &str) -> String {
        let is_mine = |link: &Link| link.role == of.role && link.store == of.store && (of.first || !link.first);
        let Some((_, proxy)) = self.0.iter().find(|(link, _)| is_mine(link)) else { return direct.to_owned() };
        direct.replace(&format!(":{}", proxy.behind()), &format!(":{}", proxy.port()))
    }

    /// From now on it is so.
    pub(crate) fn set(&self, link: Link, weather: Weather) {
        if let Some((_, proxy)) = self.0.iter().find(|(known, _)| *known == link) {
            proxy.set(weather);
        }
    }
}
