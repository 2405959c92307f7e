//! Which provider serves a model: the one place that turns a model's name into a target.

use crate::ids::Name;

/// What a job loads: the unit of limits, breakers and parking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The provider's name in the configuration.
    pub provider: Name,
    /// The model as it is sent to the provider.
    pub model: Name,
    /// Whose key is used; `default` is the operator's.
    pub credential: Name,
}

impl Target {
    /// `provider:model:credential`, as it stands in lanes and metrics.
    pub fn name(&self) -> Name {
        Name::new(format!("{}:{}:{}", self.provider, self.model, self.credential))
    }

    /// The target with this name. Only models may have a `:` in their names.
    pub fn parse(name: &str) -> Option<Self> {
        let (provider, rest) = name.split_once(':')?;
        let (model, credential) = rest.rsplit_once(':')?;
        let whole = !provider.is_empty() && !model.is_empty() && !credential.is_empty();
        whole.then(|| Self { provider: provider.into(), model: model.into(), credential: credential.into() })
    }
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
        Some(Target { provider: route.provider.clone(), model: model.into(), credential: "default".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_target_is_found_by_its_name() {
        for name in ["openai:gpt-4o:default", "local:llama3:8b:default", "gw:vendor/model:acme"] {
            assert_eq!(Target::parse(name).unwrap().name().as_str(), name);
        }
        assert_eq!(Target::parse("local:llama3:8b:default").unwrap().model.as_str(), "llama3:8b");
        for wrong in ["", "a", "a:b", ":b:c", "a::c", "a:b:"] {
            assert!(Target::parse(wrong).is_none(), "{wrong}");
        }
    }
}
