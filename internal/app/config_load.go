package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// LoadOptions says where the configuration comes from.
type LoadOptions struct {
	File     string                 // the YAML file; empty for none
	Env      []string               // NAME=value pairs, as os.Environ gives them
	EnvKnown []string               // PROCESSOR_ variables that are no settings but somebody else's
	Set      []string               // path=value pairs of --set
	Hostname func() (string, error) // names the instance where nothing else does; nil means os.Hostname
}

// Origins says where each value of a loaded configuration came from.
type Origins struct {
	file     string
	lines    []string // of the file
	places   map[string]Origin
	warnings Problems
}

// Of returns the origin of a setting. What nobody has set is FromDefault.
func (o *Origins) Of(path string) Origin { return o.places[path] }

// Warnings returns what is probably not meant so, such as a PROCESSOR_ variable that sets nothing.
// The caller logs or prints them.
func (o *Origins) Warnings() Problems { return o.warnings }

// locate returns where to show a problem with a setting: where it was set, else where the nearest
// thing around it stands in the file, else nowhere.
func (o *Origins) locate(path string) Origin {
	for {
		if at := o.places[path]; at.Kind != FromDefault {
			return at
		}
		cut := strings.LastIndexByte(path, '.')
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	if o.file == "" {
		return Origin{}
	}
	if at, found := o.places[""]; found {
		return at
	}
	return Origin{Kind: FromFile, Name: o.file, Line: 1, Column: 1}
}

// loader is one Load at work.
type loader struct {
	conf     Config
	root     reflect.Value // of conf
	origins  *Origins
	problems Problems
	bad      map[string]bool // settings that have a problem already
	meant    map[string]bool // settings that an unknown key was probably meant to be
}

// Load reads the configuration: defaults, under the file, under the environment, under --set. Then
// it judges the whole. The error is of type Problems and holds everything that is wrong; the
// Config and the Origins are then as far as they could be read, for showing, not for running.
func Load(opts LoadOptions) (Config, *Origins, error) {
	l := newLoader(opts.File)
	readable := opts.File == "" || l.readFile(opts.File)
	return l.finish(opts, readable)
}

func newLoader(file string) *loader {
	l := &loader{conf: Default(), origins: &Origins{file: file, places: map[string]Origin{}}, bad: map[string]bool{}, meant: map[string]bool{}}
	l.root = reflect.ValueOf(&l.conf).Elem()
	return l
}

// finish lays the other layers over the file and judges the whole, unless there was a file that is
// not readable: everything would be missing then.
func (l *loader) finish(opts LoadOptions, readable bool) (Config, *Origins, error) {
	l.environment(opts.Env, opts.EnvKnown)
	l.sets(opts.Set)
	l.nameInstance(opts.Hostname)
	l.pickDSN()
	if readable {
		l.judge()
	}
	l.problems.sort()
	l.origins.warnings.sort()
	if len(l.problems) > 0 {
		return l.conf, l.origins, l.problems
	}
	return l.conf, l.origins, nil
}

// readFile reports whether the file could be read and is YAML.
func (l *loader) readFile(name string) bool {
	text, err := os.ReadFile(name) //nolint:gosec // the operator says which file
	if err != nil {
		if path, is := errors.AsType[*fs.PathError](err); is {
			err = path.Err // the problem's place names the file
		}
		l.fail(Origin{Kind: FromFile, Name: name}, "", fmt.Errorf("cannot be read: %w", err))
		return false
	}
	return l.readText(name, text)
}

// readText is readFile for a text that stands in the file called name.
func (l *loader) readText(name string, text []byte) bool {
	l.origins.lines = splitLines(string(text))
	d := &decoder{
		origin: func(line, column int) Origin {
			if end, width := lastLine(l.origins.lines); line > end {
				line, column = end, width+1 // the parser's end of file is a line of its own
			}
			return Origin{Kind: FromFile, Name: name, Line: line, Column: column}
		},
		note: l.note,
		fail: l.fail,
	}
	before := len(l.problems)
	node := d.parse(text, "")
	if node == nil {
		return len(l.problems) == before
	}
	d.decode(node, "", l.root)
	return true
}

// lastLine finds the last line that is not blank, or the first.
func lastLine(lines []string) (line, width int) {
	line = len(lines)
	for line > 1 && strings.TrimSpace(lines[line-1]) == "" {
		line--
	}
	return line, utf8.RuneCountInString(lines[line-1])
}

func (l *loader) note(path string, at Origin) { l.origins.places[path] = at }

func (l *loader) fail(at Origin, path string, err error) {
	l.problems = append(l.problems, Problem{Origin: at, Path: path, Text: err.Error(), Excerpt: l.excerpt(at)})
	if _, is := errors.AsType[*duplicateKeyError](err); !is {
		l.bad[path] = true
	}
	if unknown, is := errors.AsType[*unknownKeyError](err); is {
		l.meant[unknown.meant] = true
	}
}

func (l *loader) warn(at Origin, path, text string) {
	l.origins.warnings = append(l.origins.warnings, Problem{Origin: at, Path: path, Text: text, Excerpt: l.excerpt(at), Warning: true})
}

func (l *loader) excerpt(at Origin) string {
	if at.Kind != FromFile {
		return ""
	}
	return excerpt(l.origins.lines, at.Line, at.Column)
}

// nameInstance takes the host name where no instance is given. Dots become dashes: the
// transactional id is <application>.<instance>.<lane>, and only without dots in its middle do two
// pairs of names never make the same id.
func (l *loader) nameInstance(hostname func() (string, error)) {
	if l.conf.Instance != "" {
		return
	}
	if hostname == nil {
		hostname = os.Hostname
	}
	name, err := hostname()
	if err == nil && name == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		l.fail(l.origins.locate("instance"), "instance", fmt.Errorf("is empty, and the host's name cannot be taken: %w", err))
		return
	}
	l.conf.Instance = strings.ReplaceAll(name, ".", "-")
	l.note("instance", Origin{Name: "host name"})
}

// judge validates what was read. What was misread has been reported; a judgement of the default in
// its place would only confuse.
func (l *loader) judge() {
	for _, p := range l.conf.Validate() {
		if slices.ContainsFunc(p.paths, l.misread) || p.absent && l.meant[p.Path] {
			continue
		}
		p.Path = p.paths[0]
		for _, path := range p.paths {
			if l.origins.Of(path).Kind != FromDefault {
				p.Path = path
				break
			}
		}
		p.Origin = l.origins.locate(p.Path)
		p.Excerpt = l.excerpt(p.Origin)
		if p.Warning {
			l.origins.warnings = append(l.origins.warnings, p)
			continue
		}
		l.problems = append(l.problems, p)
	}
	if at := l.origins.Of("postgres.dsn"); at.Kind == FromFile && !l.conf.Postgres.DSN.IsZero() {
		l.warn(at, "postgres.dsn", "a secret stands in the file: better name its file in postgres.dsn_file, or set "+envName("postgres.dsn"))
	}
}

// misread tells whether the setting, something around it or something in it has a problem.
func (l *loader) misread(path string) bool {
	for bad := range l.bad {
		if bad == path || strings.HasPrefix(path, bad+".") || strings.HasPrefix(bad, path+".") {
			return true
		}
	}
	return false
}
