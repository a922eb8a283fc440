#!/usr/bin/env bash
# Brings what `make test` and `make demo` need beyond Go, git and make: a Java runtime (17 or later)
# and Maven for Apache Kafka, a Postgres server and pgbouncer, Prometheus and Alertmanager with their tools for
# the rules in deploy/, Chromium for the status page, a C compiler for the race detector.
#
# On Debian and Ubuntu it installs what is missing with apt-get, elsewhere it says what to install.
# It changes nothing where everything is there, so it may run before every test. What cannot be
# installed is no error here: the demo then uses its embedded broker, and tests say what they lack.
# Kafka's jars are fetched by the first program that starts a broker, into the user's cache folder.
set -euo pipefail

java_min=17

say() { printf 'setup: %s\n' "$*"; }

java_command() {
	if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
		echo "$JAVA_HOME/bin/java"
	else
		command -v java
	fi
}

# The feature version of the Java runtime: 17 for "17.0.15", 8 for "1.8.0_392". Empty: none.
java_version() {
	local java
	java=$(java_command) || return 0
	"$java" -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1
}

found_java() {
	local version
	version=$(java_version)
	[[ -z $version ]] || echo " (found: $version)"
}

has_java() {
	local version
	version=$(java_version)
	[[ -n $version && $version -ge $java_min ]]
}

has_maven() { command -v mvn >/dev/null; }

# The same places, in the same order, as internal/cluster looks at.
has_postgres() {
	local folder
	for folder in "${PAWL_POSTGRES_BIN:-}" "$(dirname "$(command -v initdb || echo /none/initdb)")" /usr/lib/postgresql/*/bin; do
		[[ -n $folder && -x $folder/initdb && -x $folder/postgres ]] && return 0
	done
	return 1
}

has_pgbouncer() { command -v pgbouncer >/dev/null || [[ -x /usr/sbin/pgbouncer ]]; }

has_prometheus() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

# Debian names the server after its package, others after the program.
has_alertmanager() {
	command -v amtool >/dev/null && { command -v prometheus-alertmanager || command -v alertmanager; } >/dev/null
}

# The same names as internal/testkit looks for.
has_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || command -v google-chrome-stable; } >/dev/null

has_compiler() { command -v "${CC:-gcc}" >/dev/null || command -v clang >/dev/null; }

# What is missing, as words.
missing() {
	has_java || echo java
	has_maven || echo maven
	has_postgres || echo postgres
	has_pgbouncer || echo pgbouncer
	has_prometheus || echo prometheus
	has_alertmanager || echo alertmanager
	has_browser || echo browser
	has_compiler || echo compiler
}

# Runs a command as root, or fails at once where that would take a password nobody can type.
as_root() {
	if [[ $(id -u) -eq 0 ]]; then
		"$@"
	elif [[ -t 0 ]]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

can_install() {
	command -v apt-get >/dev/null && { [[ $(id -u) -eq 0 ]] || command -v sudo >/dev/null; }
}

# The Java packages of a distribution differ; its default may be too old.
java_package() {
	local package
	for package in openjdk-21-jre-headless openjdk-17-jre-headless; do
		if [[ $(apt-cache policy "$package") == *'Candidate: '[0-9]* ]]; then
			echo "$package"
			return
		fi
	done
	echo default-jre-headless
}

# The packages are only wanted for their programs: the one of Postgres must not start a server now and
# at every boot.
keep_postgres_quiet() {
	[[ ! -e /etc/postgresql-common/createcluster.conf ]] || return 0
	as_root mkdir -p /etc/postgresql-common
	echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
}

# Nor may these listen now and at every boot: only their programs are wanted. A masked service is not started
# by the package that brings it.
keep_quiet() {
	command -v systemctl >/dev/null || return 0
	case $1 in
	mask) as_root systemctl mask "$2" >/dev/null 2>&1 || true ;;
	unmask)
		as_root systemctl unmask "$2" >/dev/null 2>&1 || true
		as_root systemctl disable --now "$2" >/dev/null 2>&1 || true
		;;
	esac
}

install_with_apt() {
	local word packages service output failed=0
	say "missing: $*; installing with apt-get"
	as_root apt-get update -qq || say "apt-get update failed; going on with the lists that are there"
	for word in "$@"; do
		service=""
		case $word in
		java) packages=$(java_package) ;;
		maven) packages=maven ;;
		postgres)
			packages=postgresql
			keep_postgres_quiet
			;;
		pgbouncer) packages=pgbouncer service=pgbouncer ;;
		prometheus) packages=prometheus service=prometheus ;;
		alertmanager) packages=prometheus-alertmanager service=prometheus-alertmanager ;;
		# Without its recommendations it has no fonts.
		browser) packages="chromium fonts-dejavu-core" ;;
		compiler) packages="gcc libc6-dev" ;;
		esac
		[[ -z $service ]] || keep_quiet mask $service
		say "apt-get install $packages"
		# shellcheck disable=SC2086 # words without blanks
		if ! output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			-o Dpkg::Options::=--force-confold $packages 2>&1); then
			printf '%s\n' "$output"
			failed=1
		fi
		[[ -z $service ]] || keep_quiet unmask $service
	done
	return $failed
}

advise() {
	local word
	for word in "$@"; do
		case $word in
		java) say "please install a Java runtime, version $java_min or later$(found_java): without it tests of a real Kafka cannot run, and the demo uses its embedded broker" ;;
		maven) say "please install Maven (mvn): it fetches Apache Kafka once" ;;
		postgres) say "please install a Postgres server (initdb and postgres), or point PAWL_POSTGRES_BIN to one: without it tests of the database cannot run" ;;
		pgbouncer) say "please install pgbouncer: without it tests of a pooler cannot run" ;;
		prometheus) say "please install Prometheus (prometheus and promtool): without it tests of the alerts cannot run" ;;
		alertmanager) say "please install Alertmanager (prometheus-alertmanager and amtool): without it tests of the alerts' routes cannot run" ;;
		browser) say "please install Chromium (chromium or google-chrome): without it tests of the status page cannot run" ;;
		compiler) say "please install a C compiler (gcc): the race detector needs it" ;;
		esac
	done
	case $(uname -s) in
	Darwin) say "with Homebrew: brew install openjdk maven postgresql@18 pgbouncer prometheus alertmanager chromium" ;;
	Linux) command -v apt-get >/dev/null || say "packages are named like java-21-openjdk-headless, maven, postgresql-server, pgbouncer, prometheus, alertmanager, chromium, gcc" ;;
	esac
}

main() {
	# shellcheck disable=SC2046 # words without blanks
	set -- $(missing)
	if [[ $# -gt 0 ]] && can_install; then
		install_with_apt "$@" || say "apt-get could not install everything"
		# shellcheck disable=SC2046
		set -- $(missing)
	fi
	if [[ $# -gt 0 ]]; then
		advise "$@"
		return
	fi
	say "all there: Java $(java_version), Maven, Postgres, pgbouncer, Prometheus, Alertmanager, Chromium, C compiler"
}

main
