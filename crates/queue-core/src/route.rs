//! Which provider serves a model: the one place that turns a model's name into a target.

use crate::{credentials, ids::Name};

/// The credential of the operator, whose keys the configuration names.
pub const OPERATORS: &str = "default";

/// The provider in targets of `http` jobs: the model is the service's host. No provider may be called so.
pub const HTTP: &str = "http";
/// The provider in targets of `custom` jobs: the model is the handler. No provider may be called so.
pub const CUSTOM: &str = "custom";

/// Whether these targets are nobody's who answers chats and embeddings, and for whom tenants have keys.
pub fn is_no_provider(provider: &Name) -> bool {
    [HTTP, CUSTOM].contains(&provider.as_str())
}

/// What a job loads: the unit of limits, breakers and parking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The provider's name in the configuration.
    pub provider: Name,
    /// The model as it is sent to the provider.
    pub model: Name,
    /// Whose key is used: [`OPERATORS`], or a tenant's own ([`crate::credentials::own`]).
    pub credential: Name,
}

impl Target {
    /// `provider:model:credential`, as it stands in lanes.
    pub fn name(&self) -> Name {
        Name::new(format!("{}:{}:{}", self.provider, self.model, self.credential))
    }

    /// The target as it stands in metrics, where tenants have no name: `provider:model:own` for each tenant's own key.
    pub fn label(&self) -> Name {
        match credentials::owner(&self.credential) {
            None => self.name(),
            Some(_) => Name::new(format!("{}:{}:own", self.provider, self.model)),
        }
    }

    /// The credential with all its models, which share one account: `provider:*:credential`.
    pub fn account(&self) -> Name {
        Name::new(format!("{}:*:{}", self.provider, self.credential))
    }

    /// Whether this stands for several targets, as in settings of limits: the model ends in `*`, or the credential is `*`.
    pub fn is_pattern(&self) -> bool {
        self.model.as_str().ends_with('*') || self.speaks_for_all_credentials()
    }

    /// Whether the credential is `*`.
    pub fn speaks_for_all_credentials(&self) -> bool {
        self.credential == "*".into()
    }

    /// The name under which the dispatcher knows the lanes of this target, or by their beginning those of the pattern.
    pub fn lanes(&self) -> Name {
        match (self.model.as_str().ends_with('*'), self.speaks_for_all_credentials()) {
            (true, _) => Name::new(format!("{}:{}", self.provider, self.model)),
            (false, true) => Name::new(format!("{}:{}:*", self.provider, self.model)),
            (false, false) => self.name(),
        }
    }

    /// The target with this name. A provider's name holds no colon, a model's may.
    pub fn parse(name: &str) -> Option<Self> {
        let (provider, rest) = name.split_once(':')?;
        let (model, credential) = rest.rsplit_once(':')?;
        let parts = [provider, model, credential];
        if parts.iter().any(|part| part.is_empty()) || name.contains(NEXT) {
            return None;
        }
        let [provider, model, credential] = parts.map(Name::from);
        Some(Self { provider, model, credential })
    }
}

/// What separates the targets of a chain in the name of its lane.
const NEXT: char = '>';

/// The name under which a job with these targets waits: its target's, or the whole chain's where there is one, so that a
/// parked first target does not hold up what may go to the next. A limit for all models of a provider (`provider:*`)
/// speaks for its chains, too, by the first target.
pub fn lane_of(targets: &[Target]) -> Name {
    match targets {
        [only] => only.name(),
        chain => {
            Name::new(chain.iter().map(|target| target.name().to_string()).collect::<Vec<_>>().join(&NEXT.to_string()))
        }
    }
}

/// The targets of a lane, in the order of its chain; none where it names none.
pub fn targets_of(lane: &Name) -> Vec<Target> {
    let targets: Option<Vec<Target>> = lane.as_str().split(NEXT).map(Target::parse).collect();
    targets.unwrap_or_default()
}

/// The lane of the same targets with the credentials that `of` says for their providers. A lane that names no targets (of
/// jobs that call nobody, or where a model's name looks like a chain) stays as it is.
pub fn with_credentials(lane: &Name, of: impl Fn(&Name) -> Name) -> Name {
    let targets = targets_of(lane).into_iter().map(|target| Target { credential: of(&target.provider), ..target });
    let targets: Vec<_> = targets.collect();
    if targets.is_empty() { lane.clone() } else { lane_of(&targets) }
}

/// Whether a lane is a chain's. Models whose names hold the separator look like one, which costs a read.
pub fn is_chain(lane: &Name) -> bool {
    lane.as_str().contains(NEXT)
}

/// One provider's claim on models.
#[derive(Clone, Debug)]
pub struct Route {
    /// The provider's name.
    pub provider: Name,
    /// Models that it serves: exact names, or a prefix followed by `*`. Empty: every model.
    pub models: Vec<String>,
}

/// All providers in the order of the configuration: the first that serves a model gets it.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// See the type.
    pub routes: Vec<Route>,
    /// The model of a job that names none.
    pub default_model: Option<String>,
    /// The embedding model of a job that names none.
    pub default_embedding_model: Option<String>,
}

impl Routes {
    /// Who serves `model`; `None` when nobody does.
    pub fn resolve(&self, model: &str) -> Option<Target> {
        let serves = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => model == pattern,
        };
        let route = self.routes.iter().find(|route| route.models.is_empty() || route.models.iter().any(serves))?;
        Some(Target { provider: route.provider.clone(), model: model.into(), credential: OPERATORS.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_back_from_its_name() {
        for name in ["openai:gpt-4o:default", "local:llama3:8b:default", "gw:vendor/model:acme"] {
            assert_eq!(Target::parse(name).unwrap().name().as_str(), name);
        }
        assert_eq!(Target::parse("vllm:a:b:acme").unwrap().model, "a:b".into());
        for name in ["", "openai", "openai:gpt-4o", "a:b", ":m:c", "p::c", "p:m:", "a:b:c>d:e:f"] {
            assert_eq!(Target::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_chain_has_a_lane_of_its_own() {
        let [a, b] = ["p:a:c", "q:b:c"].map(|name| Target::parse(name).unwrap());
        assert_eq!(lane_of(std::slice::from_ref(&a)), a.name());
        let lane = lane_of(&[a.clone(), b]);
        assert!(lane.as_str().starts_with("p:a:c>") && is_chain(&lane) && !is_chain(&a.name()));
    }

    #[test]
    fn a_lane_gets_other_credentials_and_keeps_its_models() {
        let of = |provider: &Name| Name::from(if provider.as_str() == "p" { "@acme" } else { OPERATORS });
        for (lane, expected) in [
            ("p:a:b:default", "p:a:b:@acme"),
            ("q:a:@acme", "q:a:default"),
            ("q:a:default>p:b:default", "q:a:default>p:b:@acme"),
            ("probe", "probe"),
            ("p:a>b:default", "p:a>b:default"),
        ] {
            assert_eq!(with_credentials(&lane.into(), of).as_str(), expected);
        }
    }

    #[test]
    fn the_first_provider_that_serves_a_model_gets_it() {
        let routes = Routes {
            routes: vec![
                Route { provider: "embed".into(), models: vec!["e5-*".into(), "nano".into()] },
                Route { provider: "chat".into(), models: vec![] },
            ],
            ..Routes::default()
        };
        assert_eq!(routes.resolve("e5-small").unwrap().name().as_str(), "embed:e5-small:default");
        assert_eq!(routes.resolve("gpt-4o-mini").unwrap().name().as_str(), "chat:gpt-4o-mini:default");
        assert!(Routes::default().resolve("x").is_none());
    }
}
