package app

import (
	"fmt"
	"net/url"
	"reflect"
	"regexp"

	"github.com/jackc/pgx/v5/pgconn"
)

// Every setting that names files names such with secrets, but for these.
var (
	secretFileForm = regexp.MustCompile(`_files?(\.|$)`)
	publicFileForm = regexp.MustCompile(`\.(ca|cert)_file$`)
	urlForm        = regexp.MustCompile(`\.url$`)
)

// Secrets gives every text that this configuration means to hide, in the clear, so that whoever sends something away
// can look for them in it: secrets, what stands in files that hold them, passwords within connection strings, user and
// query of URLs, and what a handler's own settings name like a secret. unread says which files could not be looked
// into.
func (c Config) Secrets() (found []string, unread []error) {
	var s secretSearch
	for _, one := range settings(reflect.ValueOf(c)) {
		isFile := secretFileForm.MatchString(one.path) && !publicFileForm.MatchString(one.path)
		switch {
		case one.value.Type() == reflect.TypeFor[Secret]():
			secret, _ := reflect.TypeAssert[Secret](one.value)
			s.add(secret.Reveal())
		case one.shape == free:
			s.free(one.path, one.value.Interface(), false)
		case one.shape == texts && isFile:
			for i := range one.value.Len() {
				s.file(one.path, one.value.Index(i).String())
			}
		case one.shape == scalar && isFile:
			s.file(one.path, one.value.String())
		case one.shape == scalar && urlForm.MatchString(one.path):
			s.url(one.value.String())
		}
	}
	// The file of a connection string has been told of already.
	if dsn, err := c.ReadDSN(); err == nil && dsn != "" {
		if parsed, err := pgconn.ParseConfig(dsn); err == nil {
			s.add(parsed.Password)
		}
	}
	return s.found, s.unread
}

type secretSearch struct {
	found  []string
	unread []error
}

func (s *secretSearch) add(text string) {
	if text != "" {
		s.found = append(s.found, text)
	}
}

func (s *secretSearch) file(path, name string) {
	if name == "" {
		return
	}
	text, err := readSecretFile(name)
	if err != nil {
		s.unread = append(s.unread, fmt.Errorf("%s: %w", path, err))
	}
	s.add(text)
}

func (s *secretSearch) url(text string) {
	parsed, err := url.Parse(text)
	if err != nil {
		return // the text of a wrong URL is told of by nobody
	}
	password, _ := parsed.User.Password()
	s.add(password)
	for _, values := range parsed.Query() {
		for _, value := range values {
			s.add(value)
		}
	}
}

// free looks into what a handler's own settings hold. inside tells that a name above sounds like a secret.
func (s *secretSearch) free(path string, value any, inside bool) {
	inside = inside || sensitiveForm.MatchString(path)
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			s.free(name, inner, inside)
		}
	case []any:
		for _, inner := range value {
			s.free("", inner, inside)
		}
	default:
		if inside {
			s.add(fmt.Sprint(value))
		}
	}
}
