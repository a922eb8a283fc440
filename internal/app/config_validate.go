package app

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"pawl/internal/handlers"
	"pawl/internal/outbox/dispatch/httptarget"
	"pawl/internal/postgres"
)

// Validate judges the configuration without reading files or asking anybody. It returns everything
// that is wrong, and as warnings what is allowed but probably not meant.
func (c Config) Validate() Problems {
	v := &validator{conf: c}
	v.tags()
	v.names()
	v.kafka()
	v.timeouts()
	v.topics()
	v.routes()
	v.endpoints()
	v.rest()
	return v.problems
}

type validator struct {
	conf     Config
	problems Problems
}

// bad reports a problem with one setting; the text is the second half of a sentence that begins
// with the path.
func (v *validator) bad(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...), paths: []string{path}})
}

// clash reports a problem between settings, at the first that somebody has set; the text names them
// itself. Settings that are wrong by themselves do not clash.
func (v *validator) clash(paths []string, format string, args ...any) {
	if !slices.ContainsFunc(v.problems, func(p Problem) bool { return slices.Contains(paths, p.Path) }) {
		v.problems = append(v.problems, Problem{Path: paths[0], Text: fmt.Sprintf(format, args...), paths: paths})
	}
}

// doubt is clash for a warning.
func (v *validator) doubt(paths []string, format string, args ...any) {
	before := len(v.problems)
	v.clash(paths, format, args...)
	for i := before; i < len(v.problems); i++ {
		v.problems[i].Warning = true
	}
}

// tags applies what the struct tags demand.
func (v *validator) tags() {
	for _, s := range settings(reflect.ValueOf(v.conf)) {
		switch {
		case s.field.required && (s.value.IsZero() || s.shape != scalar && s.value.Len() == 0):
			v.problems = append(v.problems, Problem{Path: s.path, Text: "must be given: " + s.field.doc, paths: []string{s.path}, absent: true})
		case s.shape != scalar:
		case s.field.enum != nil && !slices.Contains(s.field.enum, text(s.value)):
			v.bad(s.path, "%s", notOneOf(text(s.value), s.field.enum))
		case s.field.span != "" && !inside(s.value, s.field.span):
			v.bad(s.path, "is %s, want %s", text(s.value), s.field.span)
		}
	}
}

func notOneOf(value string, allowed []string) string {
	shown := make([]string, len(allowed))
	for i, one := range allowed {
		shown[i] = cmp.Or(one, `""`)
	}
	near := nearest(value, allowed)
	if near != "" {
		near = fmt.Sprintf(", did you mean %s?", near)
	}
	return fmt.Sprintf("is %q, want one of %s%s", value, strings.Join(shown, ", "), near)
}

// inside judges a value by a range tag.
func inside(v reflect.Value, span string) bool {
	low, high := bounds(v.Type(), span)
	if v.CanFloat() {
		return low.Float() <= v.Float() && v.Float() <= high.Float() // false for NaN
	}
	return low.Int() <= v.Int() && v.Int() <= high.Int()
}

// bounds reads a range tag of a number type.
func bounds(t reflect.Type, span string) (low, high reflect.Value) {
	lowText, highText, _ := strings.Cut(span, "..")
	low, high = reflect.New(t).Elem(), reflect.New(t).Elem()
	if err := errors.Join(setText(low, lowText), setText(high, highText)); err != nil {
		panic(fmt.Sprintf("range tag %q: %v", span, err))
	}
	return low, high
}

// The forms of names. Those of topics, groups and transactional ids are Kafka's; names of outputs
// and endpoints are parts of paths, so they have no dots.
var (
	topicForm       = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	applicationForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,199}$`)
	instanceForm    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,199}$`)
	nameForm        = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,63}$`)
	settingForm     = regexp.MustCompile(`^[a-z][a-z0-9.]*$`)
	schemaForm      = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
)

func (v *validator) names() {
	c := v.conf
	if c.Application != "" && !applicationForm.MatchString(c.Application) {
		v.bad("application", "is %q, want 1 to 200 of a-z A-Z 0-9 . _ - that begin with a letter or digit", c.Application)
	}
	if c.Instance != "" && !instanceForm.MatchString(c.Instance) {
		v.bad("instance", "is %q, want 1 to 200 of a-z A-Z 0-9 _ - that begin with a letter or digit", c.Instance)
	}
	check := func(path, name string) {
		if !nameForm.MatchString(name) {
			v.bad(join(path, name), "is no name to refer to, want 1 to 64 of a-z A-Z 0-9 _ - that begin with a letter")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Outputs)) {
		check("outputs", name)
		if c.Outputs[name].Replication == 0 {
			v.bad(join("outputs", name)+".replication", "is 0, want a number of replicas, or -1 for the brokers' default")
		}
		for _, key := range slices.Sorted(maps.Keys(c.Outputs[name].Settings)) {
			if !settingForm.MatchString(key) {
				v.bad(join(join(join("outputs", name), "settings"), key), "is no topic setting of Kafka, want a name such as retention.ms")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Endpoints)) {
		check("endpoints", name)
	}
}

func (v *validator) kafka() {
	for i, broker := range v.conf.Kafka.Brokers {
		if why := noAddress(broker, true); why != "" {
			v.bad("kafka.brokers."+strconv.Itoa(i), "%s", why)
		}
	}
	tls := v.conf.Kafka.TLS
	for _, one := range []struct{ path, value string }{
		{"kafka.tls.ca_file", tls.CAFile},
		{"kafka.tls.cert_file", tls.CertFile},
		{"kafka.tls.key_file", tls.KeyFile},
		{"kafka.tls.server_name", tls.ServerName},
	} {
		if one.value != "" && !tls.Enabled {
			v.bad(one.path, "has no effect while kafka.tls.enabled is false: set that to true, or remove this")
		}
	}
	if (tls.CertFile == "") != (tls.KeyFile == "") {
		v.clash([]string{"kafka.tls.cert_file", "kafka.tls.key_file"}, "kafka.tls.cert_file and kafka.tls.key_file go together: give both or none")
	}
	v.sasl(v.conf.Kafka.SASL)
}

func (v *validator) sasl(sasl SASL) {
	const path = "kafka.sasl.mechanism"
	if slices.ContainsFunc(v.problems, func(p Problem) bool { return p.Path == path }) {
		return // nobody knows what it needs
	}
	mechanism := cmp.Or(sasl.Mechanism, "an empty mechanism")
	password := sasl.Mechanism == "PLAIN" || strings.HasPrefix(sasl.Mechanism, "SCRAM-")
	for _, one := range []struct {
		path, value string
		needed      bool
	}{
		{"kafka.sasl.username", sasl.Username, password},
		{"kafka.sasl.password_file", sasl.PasswordFile, password},
		{"kafka.sasl.token_file", sasl.TokenFile, sasl.Mechanism == "OAUTHBEARER"},
	} {
		switch {
		case one.needed && one.value == "":
			v.clash([]string{one.path, path}, "%s is empty, but %s needs it", one.path, mechanism)
		case !one.needed && one.value != "":
			v.bad(one.path, "has no effect with %s: set %s to one that uses it, or remove this", mechanism, path)
		}
	}
	if (sasl.Mechanism == "PLAIN" || sasl.Mechanism == "OAUTHBEARER") && !v.conf.Kafka.TLS.Enabled {
		v.doubt([]string{path}, "%s without kafka.tls sends the secret readable for everybody on the way", sasl.Mechanism)
	}
}

// endReserve is the least time that must be left to flush and end a transaction.
const endReserve = 2 * time.Second

// timeouts keeps the inequalities of internal/txn/DESIGN.md, rule 10.
func (v *validator) timeouts() {
	kafka, txn := v.conf.Kafka, v.conf.Txn
	if kafka.Heartbeat.Std() > kafka.SessionTimeout.Std()/3 {
		v.clash([]string{"kafka.heartbeat", "kafka.session_timeout"},
			"kafka.heartbeat (%s) x 3 must not exceed kafka.session_timeout (%s)", kafka.Heartbeat, kafka.SessionTimeout)
	}
	batch := txn.HandlerTimeout.Std() + endReserve
	if batch > txn.Timeout.Std()/2 {
		v.clash([]string{"txn.handler_timeout", "txn.timeout"},
			"txn.handler_timeout (%s) with %s to flush and end must not exceed half of txn.timeout (%s): raise txn.timeout to %s or lower txn.handler_timeout",
			txn.HandlerTimeout, endReserve, txn.Timeout, Duration(2*batch))
	}
	if kafka.RebalanceTimeout.Std() < txn.Timeout.Std()/2 {
		v.clash([]string{"kafka.rebalance_timeout", "txn.timeout"},
			"kafka.rebalance_timeout (%s) must not be less than half of txn.timeout (%s): a member ends its transaction before it joins again",
			kafka.RebalanceTimeout, txn.Timeout)
	}
	if txn.DrainTimeout.Std() < batch {
		v.doubt([]string{"txn.drain_timeout", "txn.handler_timeout"},
			"txn.drain_timeout (%s) is less than a batch may take (txn.handler_timeout %s and %s to end it): a drain may abort what is in hand",
			txn.DrainTimeout, txn.HandlerTimeout, endReserve)
	}
}

// topics judges the names of topics and refuses loops.
func (v *validator) topics() {
	c := v.conf
	seen := topicOwners{}
	for i, route := range c.Routes {
		for j, topic := range route.Topics {
			path := fmt.Sprintf("routes.%d.topics.%d", i, j)
			if slices.Contains(c.internal(), topic) && topic != c.ResultsTopic() {
				v.bad(path, "is %q, which is internal: of those only %q may be an input", topic, c.ResultsTopic())
				continue
			}
			if other := seen.add(path, topic); other != "" {
				v.bad(path, "is %q, which %s names already", topic, other)
				continue
			}
			v.topicName(path, topic)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Outputs)) {
		path, topic := join("outputs", name)+".topic", c.Outputs[name].Topic
		if slices.Contains(c.internal(), topic) {
			v.bad(path, "is %q, which only the service itself writes", topic)
			continue
		}
		switch other := seen.add(path, topic); {
		case strings.HasPrefix(other, "routes."):
			v.bad(path, "is %q, which %s reads: its records would go round for ever", topic, other)
		case other != "":
			v.bad(path, "is %q, which %s names already", topic, other)
		case topic != "":
			v.topicName(path, topic)
		}
	}
}

// topicOwners maps topics to the path that names them first.
type topicOwners map[string]string

// add returns the path that has named the topic before, or "". Topics that differ only in . and _
// are one: Kafka refuses the second, because their metrics would have one name.
func (o topicOwners) add(path, topic string) string {
	same := strings.ReplaceAll(topic, ".", "_")
	if other, taken := o[same]; taken {
		return other
	}
	if topic != "" {
		o[same] = path
	}
	return ""
}

func (v *validator) topicName(path, topic string) {
	if !topicForm.MatchString(topic) || topic == "." || topic == ".." {
		v.bad(path, "is %q, want 1 to 249 of a-z A-Z 0-9 . _ -", topic)
	}
}

// routes makes every handler as the service would, which is the check of its settings.
func (v *validator) routes() {
	outputs, endpoints := slices.Sorted(maps.Keys(v.conf.Outputs)), slices.Sorted(maps.Keys(v.conf.Endpoints))
	for i, route := range v.conf.Routes {
		path := "routes." + strconv.Itoa(i)
		if !slices.Contains(handlers.Names(), route.Handler) {
			if route.Handler != "" {
				v.bad(path+".handler", "%s", notOneOf(route.Handler, handlers.Names()))
			}
			continue
		}
		_, err := handlers.New(route.Handler, handlers.Settings{Config: route.Config, Outputs: outputs, Endpoints: endpoints})
		if err == nil && !v.conf.Effects.Enabled {
			if _, err = handlers.New(route.Handler, handlers.Settings{Config: route.Config, Outputs: outputs}); err != nil {
				err = fmt.Errorf("handler %s asks for effects, but effects.enabled is false", route.Handler)
			}
		}
		v.handler(path, route.Config, err)
	}
}

// optionPath finds the path of a handler's own setting; is is false where nobody has written it, nor the map that
// it is in.
func optionPath(config string, given map[string]any, key string) (path string, is bool) {
	if _, whole := given[key]; whole {
		return join(config, key), true
	}
	outer, inner, inside := strings.Cut(key, ".")
	if _, is := given[outer]; !is || !inside {
		return "", false
	}
	return join(join(config, outer), inner), true
}

// handler reports what a handler has against its settings, each of the joined errors by itself.
func (v *validator) handler(path string, given map[string]any, err error) {
	if err == nil {
		return
	}
	problems := []error{err}
	if joined, is := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); is {
		problems = joined.Unwrap()
	}
	paths := []string{path + ".config", path + ".handler"}
	for _, problem := range problems {
		if option, is := errors.AsType[*handlers.OptionError](problem); is {
			if at, is := optionPath(paths[0], given, option.Key); is {
				v.bad(at, "%s", option.Problem)
				continue
			}
		}
		v.problems = append(v.problems, Problem{Path: paths[0], Text: problem.Error(), paths: paths})
	}
}

func (v *validator) endpoints() {
	for _, name := range slices.Sorted(maps.Keys(v.conf.Endpoints)) {
		endpoint, path := v.conf.Endpoints[name], join("endpoints", name)
		if endpoint.URL != "" {
			v.endpointURL(path+".url", endpoint.URL, endpoint.AllowPrivate)
		}
		v.headers(path, endpoint)
		if n := len(endpoint.SecretFiles); n > 2 {
			v.bad(path+".secret_files", "names %d files, want at most 2: the current secret and its successor", n)
		}
		if endpoint.AgeMax < endpoint.Timeout {
			v.clash([]string{path + ".age_max", path + ".timeout"}, "%s.age_max (%s) must not be less than %s.timeout (%s)", path, endpoint.AgeMax, path, endpoint.Timeout)
		}
	}
}

func (v *validator) headers(path string, endpoint Endpoint) {
	given := map[string]string{} // by their canonical names
	check := func(path, name, value string) {
		canonical, err := httptarget.CheckHeader(name, value)
		if err != nil {
			v.bad(path, "%s", err)
			return
		}
		if first, twice := given[canonical]; twice {
			v.clash([]string{path, first}, "%s is header %s as well", first, canonical)
		}
		given[canonical] = path
	}
	for _, name := range slices.Sorted(maps.Keys(endpoint.Headers)) {
		check(join(path+".headers", name), name, endpoint.Headers[name].Reveal())
	}
	for _, name := range slices.Sorted(maps.Keys(endpoint.HeaderFiles)) {
		inner := join(path+".header_files", name)
		if endpoint.HeaderFiles[name] == "" {
			v.bad(inner, "is empty, want the file that holds the header's value")
		}
		check(inner, name, "")
	}
}

func (v *validator) endpointURL(path, text string, private bool) {
	where, err := url.Parse(text)
	switch {
	case err != nil || where.Host == "" || where.Scheme != "http" && where.Scheme != "https":
		v.bad(path, "is no URL of the form http://host/path or https://host/path")
	case where.User != nil:
		v.bad(path, "has a user in it, which would be printed and logged: leave it out")
	case where.Fragment != "":
		v.bad(path, "has a fragment (#), which is never sent: leave it out")
	case !private && namesPrivate(where.Hostname()):
		v.bad(path, "is an address of this host or of a private network, to which calls are refused unless allow_private is true")
	}
}

// namesPrivate tells hosts that are private by their looks. What a name resolves to is seen only when
// it is called.
func namesPrivate(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && (address.IsLoopback() || address.IsPrivate() || address.IsLinkLocalUnicast() || address.IsUnspecified())
}

func (v *validator) rest() {
	if dsn := v.conf.Postgres.DSN; !dsn.IsZero() && postgres.CheckDSN(dsn.Reveal()) != nil {
		v.bad("postgres.dsn", "is no connection string, want one such as postgres://user@host:5432/database or \"host=... user=... dbname=...\"; it is not shown because it may hold a password")
	}
	if schema := v.conf.Postgres.Schema; !schemaForm.MatchString(schema) {
		v.bad("postgres.schema", "is %q, want 1 to 63 of a-z 0-9 _ that begin with no digit", schema)
	}
	if why := noAddress(v.conf.Admin.Listen, false); why != "" {
		v.bad("admin.listen", "%s", why)
	}
}

// noAddress says what is wrong with host:port. To listen, the host may be empty and the port 0.
func noAddress(address string, dial bool) string {
	host, port, err := net.SplitHostPort(address)
	number, errNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || errNumber != nil || dial && (host == "" || number == 0) {
		form := "host:port or :port"
		if dial {
			form = "host:port"
		}
		return fmt.Sprintf("is %q, want %s with a port up to 65535", address, form)
	}
	return ""
}
