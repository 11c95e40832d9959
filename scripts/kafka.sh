#!/usr/bin/env bash
# Puts Apache Kafka's jars into the user's cache, where the integration tests find them, and prints the folder.
# They come from Maven Central, or from whatever mirror the user's Maven settings name.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/env.sh

libs="$HEADWATER_KAFKA_LIBS"
# The logging binding that Kafka's own POM leaves out.
LOG4J_VERSION=2.25.1

if [ -f "$libs/kafka_2.13-$HEADWATER_KAFKA_VERSION.jar" ]; then
    echo "$libs"
    exit 0
fi

command -v mvn >/dev/null || { echo "kafka: 'mvn' is not on the PATH; it fetches Kafka's jars" >&2; exit 1; }

mkdir -p "$(dirname "$libs")"
work="$(mktemp -d "$(dirname "$libs")/fetch.XXXXXX")"
trap 'rm -rf "$work"' EXIT

cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headwater</groupId>
  <artifactId>test-broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$HEADWATER_KAFKA_VERSION</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>$LOG4J_VERSION</version>
    </dependency>
  </dependencies>
</project>
POM

echo "kafka: fetching the jars of Kafka $HEADWATER_KAFKA_VERSION" >&2
# Maven writes what went wrong to its standard output.
mvn --batch-mode --quiet --file "$work/pom.xml" dependency:copy-dependencies -Dstyle.color=never \
    -DincludeScope=runtime -DoutputDirectory="$work/libs" >&2 ||
    { echo "kafka: Maven could not fetch the jars, see above" >&2; exit 1; }

# One rename, so that a folder that exists is complete. It may lose a race against another fetch of the same jars.
mv -T "$work/libs" "$libs" 2>/dev/null || [ -f "$libs/kafka_2.13-$HEADWATER_KAFKA_VERSION.jar" ]
echo "kafka: $(find "$libs" -name '*.jar' | wc -l) jars in $libs" >&2
echo "$libs"
