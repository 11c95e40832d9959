use std::env;
use std::path::{Path, PathBuf};

use crate::ports::random;
use crate::{Failure, Program};

/// Release of Kafka whose jars the set-up script fetches.
const VERSION: &str = "4.4.0";

/// What to do where no broker can be had; part of every such failure.
const REMEDY: &str = "Tests on a real Kafka need one of two things: a running broker named by the variable \
     KAFKA_BOOTSTRAP_SERVERS, or a Java runtime (17 or later; Debian: `apt-get install openjdk-17-jre-headless`) and \
     Kafka's jars (`scripts/setup.sh` fetches them with Maven; HEADWATER_KAFKA_LIBS names their folder).";

/// The jars of Apache Kafka and the Java that runs them.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    java: PathBuf,
    class_path: String,
}

impl Kafka {
    /// Finds the jars in the folder named by `HEADWATER_KAFKA_LIBS`, else in the user's cache.
    pub(crate) fn find() -> Result<Self, Failure> {
        let libs = libs_folder()?;
        let has_server = std::fs::read_dir(&libs).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.starts_with("kafka_") && name.ends_with(".jar")
            })
        });
        if !has_server {
            return Err(without(&format!("no kafka_*.jar in {}", libs.display())));
        }
        let java = env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"));
        Ok(Self { java, class_path: format!("{}/*", libs.display()) })
    }

    /// Writes the metadata of a new cluster of one node into the folders that the properties name.
    pub(crate) fn format(&self, properties: &Path) -> Result<(), Failure> {
        let output = self
            .java(&["-Xmx256m"])
            .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", &cluster_id(), "-c"])
            .arg(properties.display().to_string())
            .command()
            .output()
            .map_err(|error| without(&format!("cannot start {}: {error}", self.java.display())))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "Kafka's storage tool refuses {}: {}{}",
            properties.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )))
    }

    /// The node itself; `logging` is a configuration file of log4j 2.
    pub(crate) fn server(&self, properties: &Path, logging: &Path) -> Program {
        self.java(&["-Xms256m", "-Xmx512m", &format!("-Dlog4j2.configurationFile={}", logging.display())])
            .arg("kafka.Kafka")
            .arg(properties.display().to_string())
    }

    fn java(&self, options: &[&str]) -> Program {
        // A short life on few cores: the cheap collector, and no second compiler.
        Program::new(&self.java)
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(options.iter().copied())
            .args(["-cp", &self.class_path])
    }
}

/// A failure to have a broker at all, saying what to install.
pub(crate) fn without(reason: &str) -> Failure {
    Failure::new(format!("no Kafka: {reason}. {REMEDY}"))
}

fn libs_folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = env::var_os("HEADWATER_KAFKA_LIBS") {
        return Ok(folder.into());
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or_else(|| without("neither HEADWATER_KAFKA_LIBS, XDG_CACHE_HOME nor HOME is set"))?;
    Ok(cache.join(format!("headwater/kafka-{VERSION}/libs")))
}

/// A cluster id as Kafka makes them: 16 random bytes in URL-safe base 64 without padding. Made here, since the storage
/// tool needs a second of its own for it.
fn cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = (u128::from(random()) << 64) | u128::from(random());
    // 22 characters hold 132 bits: the last one carries the lowest two, padded with zeros. The first is kept within the
    // letters, as an id with a leading dash would be taken for an option.
    (0..22u32)
        .map(|place| {
            let sextet = if place == 21 { (bits & 0b11) << 4 } else { bits >> (122 - 6 * place) } & 63;
            let index = usize::try_from(sextet).unwrap_or(0) % if place == 0 { 52 } else { 64 };
            ALPHABET.get(index).copied().map_or('A', char::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_have_kafkas_form() {
        let (one, other) = (cluster_id(), cluster_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 22);
        assert!(!one.starts_with('-'));
        assert!(one.ends_with(['A', 'Q', 'g', 'w']));
    }

    #[test]
    fn a_broker_that_cannot_be_had_says_what_to_install() {
        let text = without("no jars").to_string();
        for word in ["no jars", "KAFKA_BOOTSTRAP_SERVERS", "HEADWATER_KAFKA_LIBS", "openjdk-17", "scripts/setup.sh"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
