package app

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

const envPrefix = "PROCESSOR_"

// serviceForm are the variables that Kubernetes sets for a service that is named processor. They are
// not ours, and no typing errors.
var serviceForm = regexp.MustCompile(`^PROCESSOR_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

var (
	pathForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
	wordForm = regexp.MustCompile(`^[A-Za-z0-9_.-]*`)
)

// envName is the environment variable of a setting: its path, upper-cased, with _ for all that is
// no letter or digit.
func envName(path string) string {
	return envPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		default:
			return '_'
		}
	}, path)
}

// environment lays the PROCESSOR_ variables over what is there. Lists and maps come first, because
// they decide which variables name an entry.
func (l *loader) environment(env, known []string) {
	vars := map[string]string{}
	for _, pair := range env {
		if name, value, found := strings.Cut(pair, "="); found && strings.HasPrefix(name, envPrefix) {
			vars[name] = value
		}
	}
	used := map[string]bool{}
	for again := true; again; {
		again = false
		for _, s := range settings(l.root) {
			name := envName(s.path)
			value, set := vars[name]
			if container := s.shape == list || s.shape == named; container && set && !used[name] {
				used[name], again = true, true
				l.assign(Origin{Kind: FromEnv, Name: name}, s.path, value)
				break // what is below it has changed
			}
		}
	}
	settable := map[string]string{}
	for _, s := range settings(l.root) {
		name := envName(s.path)
		if other, twice := settable[name]; twice && vars[name] != "" {
			l.fail(Origin{Kind: FromEnv, Name: name}, s.path, fmt.Errorf("the variable means %s as well: use --set or the file", other))
		}
		settable[name] = s.path
		if value, set := vars[name]; set && !used[name] {
			used[name] = true
			l.assign(Origin{Kind: FromEnv, Name: name}, s.path, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !used[name] && !slices.Contains(known, name) && !serviceForm.MatchString(name) {
			text := "no setting has this name"
			if near := nearest(name, slices.Sorted(maps.Keys(settable))); near != "" {
				text += ", did you mean " + near + "?"
			}
			l.warn(Origin{Kind: FromEnv, Name: name}, "", text)
		}
	}
}

// sets lays the values of --set over what is there, in their order.
func (l *loader) sets(pairs []string) {
	for _, pair := range pairs {
		path, value, found := strings.Cut(pair, "=")
		if path = strings.TrimSpace(path); !found || !pathForm.MatchString(path) {
			name := wordForm.FindString(path) // and no more: a secret may follow
			l.fail(Origin{Kind: FromSet, Name: name}, "", errors.New("want PATH=VALUE, such as txn.lanes=2"))
			continue
		}
		l.assign(Origin{Kind: FromSet, Name: path}, path, value)
	}
}

// assign gives the setting at path the value of a text: as it is for a single value, separated by
// commas for a list of names, else as YAML.
func (l *loader) assign(at Origin, path, text string) {
	err := reach(l.root, "", strings.Split(path, "."), func(path string, v reflect.Value) {
		if err := l.setFrom(at, path, v, text); err != nil {
			l.fail(at, path, err)
		}
	})
	if err != nil {
		l.fail(at, path, err)
	}
}

func (l *loader) setFrom(at Origin, path string, v reflect.Value, text string) error {
	switch shapeOf(v.Type()) {
	case scalar:
		l.note(path, at)
		return setText(v, text)
	case texts:
		l.forget(path)
		l.note(path, at)
		items := []string{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		v.Set(reflect.ValueOf(items))
		return nil
	case list, named, free:
		l.forget(path)
		v.SetZero()
	case group: // what the text does not name stays
	}
	d := &decoder{origin: func(int, int) Origin { return at }, note: l.note, fail: l.fail}
	node := d.parse([]byte(text), path)
	if node == nil {
		l.note(path, at)
		return nil
	}
	d.decode(node, path, v)
	return nil
}

// forget drops the origins of what is below path: it is about to be replaced as a whole.
func (l *loader) forget(path string) {
	maps.DeleteFunc(l.origins.places, func(place string, _ Origin) bool { return strings.HasPrefix(place, path+".") })
}

var errBothDSN = errors.New("is given beside postgres.dsn, want one of them")

// pickDSN leaves one of the two ways to give the connection string: the one of the higher layer.
func (l *loader) pickDSN() {
	postgres := &l.conf.Postgres
	if postgres.DSN.IsZero() || postgres.DSNFile == "" {
		return
	}
	dsn, file := l.origins.Of("postgres.dsn"), l.origins.Of("postgres.dsn_file")
	switch {
	case dsn.Kind == file.Kind:
		l.fail(file, "postgres.dsn_file", errBothDSN)
	case dsn.Kind > file.Kind:
		postgres.DSNFile = ""
		l.note("postgres.dsn_file", dsn)
	default:
		postgres.DSN = Secret{}
		l.note("postgres.dsn", file)
	}
}
