//! What `up` says when it is ready: where it listens, who answers, and two lines that submit a first job.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    client::Access,
    config::Config,
    data::{DATA_DEFAULT, DataFolder},
    output::{self, Output},
};

/// Where the admin key of this installation comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminKey {
    /// Made by this start: to be shown once.
    New(String),
    /// Found in the data folder.
    Kept,
    /// Given by `LONGSHORE_ADMIN_KEY` or a file of its own.
    Given,
}

/// Everything that the greeting mentions.
pub(crate) struct Greeting<'a> {
    pub(crate) config: &'a Config,
    pub(crate) access: &'a Access,
    pub(crate) folder: &'a DataFolder,
    pub(crate) url: &'a str,
    pub(crate) admin_key: &'a AdminKey,
}

/// Cannot be overlooked.
const SIMULATED: &str = "  ################################################################
  #                                                              #
  #   S I M U L A T E D   P R O V I D E R                        #
  #   ANSWERS ARE INVENTED. NO MODEL IS CALLED, NOTHING IS PAID  #
  #                                                              #
  ################################################################";

impl Greeting<'_> {
    /// Prints it to stdout.
    pub(crate) fn print(&self, out: Output) {
        if out.json {
            return out.value_line(&self.to_json());
        }
        output::line(&self.text(&program()));
    }

    fn to_json(&self) -> serde_json::Value {
        let providers: Vec<_> = self.config.providers.iter().map(|provider| provider.name.as_str()).collect();
        let mut value = json!({
            "url": self.url, "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(),
            "data": self.folder.path(), "providers": providers, "simulated": self.simulated(),
        });
        if self.config.dashboard.is_some() {
            value["dashboard"] = json!(format!("{}/dashboard", self.url));
        }
        if let AdminKey::New(key) = self.admin_key {
            value["admin_key"] = json!(key);
        }
        value
    }

    fn simulated(&self) -> bool {
        self.config.providers.iter().all(|provider| provider.is_simulated())
    }

    fn text(&self, program: &str) -> String {
        let key_file = shown(&self.folder.key_file());
        let mut lines = vec![
            format!("longshore {} listens on {}", env!("CARGO_PKG_VERSION"), self.url),
            format!("  data       {}", shown(self.folder.path())),
        ];
        if self.config.dashboard.is_some() {
            lines.push(format!("  dashboard  {}/dashboard", self.url));
        }
        lines.push(match self.admin_key {
            AdminKey::New(key) => {
                format!("  admin key  {key}\n             shown this once; kept in {key_file}, for you only")
            }
            AdminKey::Kept => format!("  admin key  in {key_file}"),
            AdminKey::Given => "  admin key  the one that was given".to_owned(),
        });
        if self.simulated() {
            lines.push(format!("\n{SIMULATED}\n"));
            lines.push(format!("  a real one:  OPENAI_API_KEY=… {program} up"));
            lines.push(format!("  or:          {program} up --provider-url http://127.0.0.1:8000/v1"));
        } else {
            let names: Vec<_> = self.config.providers.iter().map(|provider| provider.name.as_str()).collect();
            lines.push(format!("  providers  {}", names.join(", ")));
        }
        lines.push("\nSubmit a job and see its result:".to_owned());
        lines.push(format!("\n  {}", self.cli_line(program)));
        lines.push(format!("\n  {}\n", self.curl_line(&key_file)));
        lines.push("Ctrl-C stops: running jobs may finish, everything else waits for the next start.".to_owned());
        lines.join("\n")
    }

    /// Works word for word in the folder from which this process was started.
    fn cli_line(&self, program: &str) -> String {
        let data = self.access.data.as_deref().unwrap_or_else(|| self.config.data.to_str().unwrap_or(DATA_DEFAULT));
        let key = match self.admin_key {
            AdminKey::Given => "LONGSHORE_KEY=\"$LONGSHORE_ADMIN_KEY\" ",
            AdminKey::New(_) | AdminKey::Kept => "",
        };
        let data = if data == DATA_DEFAULT { String::new() } else { format!(" --data {}", quoted(data)) };
        let job = match &self.config.default_model {
            Some(_) => "--prompt \"Say hello\"",
            // A provider whose models we do not know: the job that needs none shows the way.
            None => "--kind probe --payload '{\"sleep_ms\":200}'",
        };
        format!("{key}{program} job submit {job} --wait{data}")
    }

    fn curl_line(&self, key_file: &str) -> String {
        let key = match self.admin_key {
            AdminKey::Given => "$LONGSHORE_ADMIN_KEY".to_owned(),
            AdminKey::New(_) | AdminKey::Kept => format!("$(cat {key_file})"),
        };
        let job = match &self.config.default_model {
            Some(_) => r#"{"kind":"llm","payload":{"messages":[{"role":"user","content":"Say hello"}]}}"#,
            None => r#"{"kind":"probe","payload":{"sleep_ms":200}}"#,
        };
        let auth = format!("-H \"Authorization: Bearer {key}\"");
        let url = self.url;
        format!(
            "curl -s {auth} \"{url}/v1/jobs/$(curl -s {auth} -H 'Content-Type: application/json' -d '{job}' \
             {url}/v1/jobs | grep -o '\"id\":\"[^\"]*' | cut -d'\"' -f4)?wait=30s\""
        )
    }
}

/// How this program is called from here: beside the shell's folder where possible.
fn program() -> String {
    let here = std::env::current_dir().and_then(|path| path.canonicalize());
    match (std::env::current_exe().and_then(|path| path.canonicalize()), here) {
        (Ok(exe), Ok(here)) => match exe.strip_prefix(&here) {
            Ok(below) => quoted(&format!("./{}", below.display())),
            Err(_) => quoted(&exe.display().to_string()),
        },
        _ => "longshore".to_owned(),
    }
}

/// A path as it is reached from here, safe to paste into a shell.
fn shown(path: &Path) -> String {
    let here: Option<PathBuf> = std::env::current_dir().and_then(|path| path.canonicalize()).ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok());
    quoted(&below.unwrap_or(path).display().to_string())
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "/._-:=@%+,".contains(c)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Flags, environment::Environment};

    fn text_of(config: &Config, admin_key: &AdminKey) -> String {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::take(&dir.path().join("longshore-data")).unwrap();
        let access = Access::default();
        Greeting { config, access: &access, folder: &folder, url: "http://127.0.0.1:1", admin_key }.text("./longshore")
    }

    fn config(env: &[(&str, &str)]) -> Config {
        Config::load(&Flags::default(), None, &Environment::of(env)).unwrap()
    }

    #[test]
    fn a_simulated_provider_cannot_be_overlooked_and_the_way_out_is_named() {
        let text = text_of(&config(&[]), &AdminKey::New("lsk_new".into()));
        for expected in
            ["S I M U L A T E D", "OPENAI_API_KEY=… ./longshore up", "--provider-url", "lsk_new", "job submit --prompt"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn a_real_provider_and_a_given_key_are_named_and_never_shown() {
        let config = config(&[("OPENAI_API_KEY", "sk-hush"), ("LONGSHORE_ADMIN_KEY", "lsk_hush")]);
        let text = text_of(&config, &AdminKey::Given);
        assert!(!text.contains("S I M U L A T E D") && !text.contains("hush"), "{text}");
        assert!(
            text.contains("providers  openai") && text.contains("LONGSHORE_KEY=\"$LONGSHORE_ADMIN_KEY\""),
            "{text}"
        );
    }

    #[test]
    fn paths_are_quoted_for_the_shell_where_they_must_be() {
        assert_eq!(quoted("./target/release/longshore"), "./target/release/longshore");
        assert_eq!(quoted("/my data/it's"), r"'/my data/it'\''s'");
    }
}
