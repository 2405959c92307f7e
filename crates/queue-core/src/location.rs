//! Where files lie that are no rows: a folder, or a bucket of a server that speaks S3 or Google's protocol.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::unix::fs::DirBuilderExt,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};

/// Longest time of one try of a request.
const TRY_MAX: Duration = Duration::from_secs(120);
/// Longest time until a server answers a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Tries of one request behind the first, and for how long: a server that blinks.
const RETRIES_MAX: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// A place as configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `file:PATH` or `file://PATH`.
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX`.
    S3(Bucket),
    /// `gs://BUCKET/PREFIX`.
    Gcs(Bucket),
}

/// A bucket, and what stands before all names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    name: String,
    prefix: Path,
}

/// Whether a folder is made with those that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folders {
    /// It is.
    All,
    /// Only itself: what it is in is a disk that may not be mounted.
    Last,
}

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("`{url}` is no `file:PATH`, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`");
        let (scheme, rest) = url.split_once(':').ok_or_else(wrong)?;
        let behind = rest.strip_prefix("//");
        if scheme == "file" {
            let path = behind.unwrap_or(rest);
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Folder(path.into())) };
        }
        let rest = behind.ok_or_else(wrong)?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| format!("{url}: {error}"))?;
        if name.is_empty() {
            return Err(wrong());
        }
        let bucket = Bucket { name: name.to_owned(), prefix };
        match scheme {
            "s3" => Ok(Self::S3(bucket)),
            "gs" => Ok(Self::Gcs(bucket)),
            _ => Err(wrong()),
        }
    }

    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&FilePath> {
        match self {
            Self::Folder(path) => Some(path),
            Self::S3(_) | Self::Gcs(_) => None,
        }
    }

    /// A client for it. `options` are those of the bucket's client by the names of its environment variables (`aws_access_key_id`,
    /// `aws_endpoint_url`, `google_application_credentials` …); names that it does not know are left out. A folder is made, for nobody else
    /// to read, and what it has taken survives a loss of power. Nothing is asked of a bucket's server yet.
    pub(crate) fn open(
        &self,
        options: &BTreeMap<String, String>,
        folders: Folders,
    ) -> Result<Arc<dyn ObjectStore>, String> {
        let failed = |error: &dyn fmt::Display| format!("{self}: {error}");
        let client = ClientOptions::new().with_timeout(TRY_MAX).with_connect_timeout(CONNECT_MAX);
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        match self {
            Self::Folder(path) => {
                make(path, folders).map_err(|error| failed(&error))?;
                let folder = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(&error))?;
                Ok(Arc::new(folder.with_fsync(true)))
            }
            Self::S3(bucket) => {
                let builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
                let known = known::<AmazonS3ConfigKey>(options);
                let builder = known.fold(builder.with_bucket_name(&bucket.name), |builder, (key, value)| {
                    builder.with_config(key, value)
                });
                Ok(bucket.below(builder.build().map_err(|error| failed(&error))?))
            }
            Self::Gcs(bucket) => {
                let builder = GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(retry);
                let known = known::<GoogleConfigKey>(options);
                let builder = known.fold(builder.with_bucket_name(&bucket.name), |builder, (key, value)| {
                    builder.with_config(key, value)
                });
                Ok(bucket.below(builder.build().map_err(|error| failed(&error))?))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file:{}", path.display()),
            Self::S3(bucket) => write!(f, "s3://{bucket}"),
            Self::Gcs(bucket) => write!(f, "gs://{bucket}"),
        }
    }
}

impl Bucket {
    fn below(&self, store: impl ObjectStore) -> Arc<dyn ObjectStore> {
        match self.prefix.is_root() {
            true => Arc::new(store),
            false => Arc::new(PrefixStore::new(store, self.prefix.clone())),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.is_root() {
            true => f.write_str(&self.name),
            false => write!(f, "{}/{}", self.name, self.prefix),
        }
    }
}

fn known<K: std::str::FromStr>(options: &BTreeMap<String, String>) -> impl Iterator<Item = (K, &str)> {
    options.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str())))
}

/// Prompts and answers lie there, and sizes and times are nobody else's business, either.
fn make(path: &FilePath, folders: Folders) -> io::Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(folders == Folders::All).create(path);
    match made {
        Err(_) if path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other("the folder that it is in is not there: mount what is to be mounted, or make it"))
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_folder_or_a_bucket() {
        let folder = |path: &str| Location::Folder(path.into());
        assert_eq!(Location::parse("file:a/b"), Ok(folder("a/b")));
        assert_eq!(Location::parse("file:///a/b"), Ok(folder("/a/b")));
        for (url, shown) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/prefix/", "s3://bucket/a/prefix"),
            ("gs://bucket/a", "gs://bucket/a"),
        ] {
            let location = Location::parse(url).unwrap();
            assert_eq!((location.to_string(), location.folder()), (shown.to_owned(), None));
        }
        for wrong in ["", "file:", "file://", "s3://", "s3:///a", "s3:a", "gs://", "/a/b", "ftp://a/b", "s3://a/b//c"] {
            assert!(Location::parse(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn clients_are_made_of_variables() {
        let options: BTreeMap<String, String> = [
            ("aws_access_key_id", "a"),
            ("aws_secret_access_key", "b"),
            ("aws_endpoint_url", "http://127.0.0.1:1"),
            ("google_skip_signature", "true"),
            ("aws_of_no_meaning", "c"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for url in ["s3://bucket/a", "gs://bucket/a"] {
            Location::parse(url).unwrap().open(&options, Folders::All).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let deep = Location::Folder(folder.path().join("not/there"));
        assert!(deep.open(&options, Folders::Last).unwrap_err().contains("mount"));
        deep.open(&options, Folders::All).unwrap();
        deep.open(&options, Folders::Last).unwrap();
    }
}
