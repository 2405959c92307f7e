//! Whether traces are told, to whom, and how many: by OpenTelemetry's own variables, as every program does
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Headers, compression, the resource
//! (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`), batches (`OTEL_BSP_…`) and limits of spans are read by its SDK.

use std::{path::PathBuf, time::Duration};

use queue_core::traces::{Attempts, names};
use reqwest::Url;

use super::file;
use crate::environment::Environment;

/// How long one export may take unless told otherwise: what the specification says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Where traces go, and which.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traces {
    /// The receiver's URL with its path.
    pub(crate) endpoint: Url,
    /// Longest time of one export.
    pub(crate) timeout: Duration,
    /// Who signs the receiver's certificate, where no public authority does.
    pub(crate) ca_file: Option<PathBuf>,
    /// Which jobs are traced.
    pub(crate) sampling: Sampling,
    /// How attempts stand to submits.
    pub(crate) attempts: Attempts,
    /// Whether the later family of `gen_ai.*` is told, too.
    pub(crate) gen_ai_latest: bool,
}

/// What is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// Of what begins here, this share.
    pub(crate) share: f64,
    /// Whether what a caller decided holds: the caller of a submit for it, the submit for its attempts.
    pub(crate) is_parent_based: bool,
}

/// What the variables say; `None`: no traces are made.
pub(super) fn traces(env: &Environment, file: &file::TracesTable) -> Result<Option<Traces>, String> {
    let attempts = match env.get("LONGSHORE_TRACES_ATTEMPTS") {
        Some("linked") => Attempts::Linked,
        Some("children") => Attempts::Children,
        Some(word) => return Err(format!("LONGSHORE_TRACES_ATTEMPTS is `{word}`; it is `linked` or `children`")),
        None => file.attempts.unwrap_or_default(),
    };
    if env.get("OTEL_SDK_DISABLED").is_some_and(|word| word.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match env.get("OTEL_TRACES_EXPORTER") {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(format!("OTEL_TRACES_EXPORTER is `{other}`; it is `otlp` or `none`")),
    }
    let Some(endpoint) = endpoint(env)? else { return Ok(None) };
    let of_traces = |name: &str| env.get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
    let either = |name: &str| of_traces(name).or_else(|| env.get(&format!("OTEL_EXPORTER_OTLP_{name}")));
    if let Some(protocol) = either("PROTOCOL").filter(|word| *word != "http/protobuf") {
        return Err(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`; traces are sent as http/protobuf, which collectors take on port 4318"
        ));
    }
    let timeout = match either("TIMEOUT") {
        Some(text) => text
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| format!("OTEL_EXPORTER_OTLP_TIMEOUT is `{text}`; it is a number of milliseconds"))?,
        None => TIMEOUT_DEFAULT,
    };
    let opted_in = env.get("OTEL_SEMCONV_STABILITY_OPT_IN").unwrap_or_default();
    Ok(Some(Traces {
        endpoint,
        timeout,
        ca_file: either("CERTIFICATE").map(PathBuf::from),
        sampling: sampling(env)?,
        attempts,
        gen_ai_latest: opted_in.split(',').any(|word| word.trim() == names::GEN_AI_LATEST),
    }))
}

fn endpoint(env: &Environment) -> Result<Option<Url>, String> {
    let (name, whole) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
    let (name, text, path) = match (whole, env.get("OTEL_EXPORTER_OTLP_ENDPOINT")) {
        (Some(whole), _) => (name, whole, None),
        (None, Some(base)) => ("OTEL_EXPORTER_OTLP_ENDPOINT", base, Some(["v1", "traces"])),
        (None, None) => return Ok(None),
    };
    let wrong = || format!("{name} is no http or https URL such as http://collector:4318");
    let mut url: Url = text.parse().map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{name} contains a user or password; OTEL_EXPORTER_OTLP_HEADERS is the place for them"));
    }
    if let Some(path) = path {
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
    }
    Ok(Some(url))
}

fn sampling(env: &Environment) -> Result<Sampling, String> {
    let word = env.get("OTEL_TRACES_SAMPLER").unwrap_or("parentbased_always_on");
    let (is_parent_based, of_roots) = match word.strip_prefix("parentbased_") {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let share = match of_roots {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match env.get("OTEL_TRACES_SAMPLER_ARG") {
            Some(text) => text
                .parse()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG is `{text}`; it is a share between 0 and 1"))?,
            None => 1.0,
        },
        _ => {
            return Err(format!(
                "OTEL_TRACES_SAMPLER is `{word}`; it is always_on, always_off or traceidratio, with or without \
                 `parentbased_` before it"
            ));
        }
    };
    Ok(Sampling { share, is_parent_based })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pairs: &[(&str, &str)]) -> Result<Option<Traces>, String> {
        traces(&Environment::of(pairs), &file::TracesTable::default())
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/");

    #[test]
    fn without_an_endpoint_or_when_told_so_there_are_no_traces() {
        let off = [
            vec![],
            vec![("OTEL_TRACES_SAMPLER", "always_on")],
            vec![BASE, ("OTEL_SDK_DISABLED", "TRUE")],
            vec![BASE, ("OTEL_TRACES_EXPORTER", "none")],
        ];
        assert!(off.iter().all(|pairs| told(pairs) == Ok(None)));
        assert!(told(&[BASE, ("OTEL_SDK_DISABLED", "no")]).unwrap().is_some());
    }

    #[test]
    fn what_is_of_traces_alone_goes_before_what_is_of_all_signals() {
        let plain = told(&[BASE]).unwrap().unwrap();
        assert_eq!(plain.endpoint.as_str(), "http://collector:4318/otlp/v1/traces");
        assert_eq!((plain.timeout, plain.attempts, plain.gen_ai_latest), (TIMEOUT_DEFAULT, Attempts::Linked, false));
        assert_eq!(plain.sampling, Sampling { share: 1.0, is_parent_based: true });
        let own = told(&[
            BASE,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/in"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental"),
            ("LONGSHORE_TRACES_ATTEMPTS", "children"),
        ]);
        let own = own.unwrap().unwrap();
        assert_eq!((own.endpoint.as_str(), own.timeout.as_millis()), ("https://traces.example/in", 250));
        assert_eq!(own.sampling, Sampling { share: 0.25, is_parent_based: false });
        assert_eq!((own.attempts, own.gen_ai_latest), (Attempts::Children, true));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://me:hidden@collector/v1/traces"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("LONGSHORE_TRACES_ATTEMPTS", "siblings"),
        ] {
            let refused = told(&[BASE, (name, value)]).unwrap_err();
            assert!(refused.contains(name) && !refused.contains("hidden"), "{refused}");
        }
        let share = [BASE, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1 %")];
        assert!(told(&share).unwrap_err().contains("OTEL_TRACES_SAMPLER_ARG"));
    }
}
