//! The lcores of a run, by what they are for.

use super::lcore::{Lcore, Role};

/// The lcores of a run: those of the application, and those that `-S` keeps for services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lcores {
    application: Vec<Lcore>,
    service: Vec<Lcore>,
}

impl Lcores {
    /// The application's lcores: the main one and the workers, in order of their numbers.
    #[must_use]
    pub fn application(&self) -> &[Lcore] {
        &self.application
    }

    /// The workers: all of the application's but the main one.
    pub fn workers(&self) -> impl Iterator<Item = Lcore> + '_ {
        self.application.iter().copied().filter(|lcore| lcore.role == Role::Worker)
    }

    /// The main lcore: the one that `--main-lcore` names, or the first.
    #[must_use]
    pub fn main(&self) -> Option<Lcore> {
        self.application.iter().copied().find(|lcore| lcore.role == Role::Main)
    }

    /// The lcores that `-S` keeps for services.
    #[must_use]
    pub fn service(&self) -> &[Lcore] {
        &self.service
    }

    /// Their CPUs.
    pub(super) fn cpus(&self) -> impl Iterator<Item = u32> + '_ {
        self.application.iter().chain(&self.service).map(|lcore| lcore.cpu)
    }
}

impl FromIterator<Lcore> for Lcores {
    fn from_iter<I: IntoIterator<Item = Lcore>>(lcores: I) -> Self {
        let (service, application) =
            lcores.into_iter().partition(|lcore| lcore.role == Role::Service);
        Self { application, service }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lcore_is_found_by_what_it_is_for() {
        let lcore = |id, role| Lcore { id, cpu: id + 8, node: None, role };
        let lcores: Lcores = [
            lcore(1, Role::Worker),
            lcore(2, Role::Service),
            lcore(3, Role::Main),
            lcore(4, Role::Worker),
        ]
        .into_iter()
        .collect();
        let ids = |lcores: &[Lcore]| lcores.iter().map(|lcore| lcore.id).collect::<Vec<_>>();
        assert_eq!(ids(lcores.application()), [1, 3, 4]);
        assert_eq!(ids(&lcores.workers().collect::<Vec<_>>()), [1, 4]);
        assert_eq!(lcores.main().map(|lcore| lcore.id), Some(3));
        assert_eq!(ids(lcores.service()), [2]);
        assert_eq!(lcores.cpus().collect::<Vec<_>>(), [9, 11, 12, 10]);
        assert_eq!(Lcores::default().main(), None);
    }
}
