package app

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Whoever looks for secrets must know them all, wherever the configuration keeps them.
func TestSecretsOfAConfigurationAreFound(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(folder, text)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf := Default()
	conf.Kafka.SASL.PasswordFile, conf.Kafka.SASL.TokenFile = file("sasl-password"), file("sasl-token")
	conf.Kafka.TLS.KeyFile, conf.Kafka.TLS.CAFile, conf.Kafka.TLS.CertFile = file("tls-key"), file("tls-ca"), file("tls-cert")
	conf.Admin.TokenFile = file("admin-token")
	conf.Postgres.DSN = NewSecret("postgres://anna:dsn-password@db/pawl")
	conf.Endpoints = map[string]Endpoint{"a.b": {
		URL: "https://u:url-password@host/x?key=url-key", Headers: map[string]Secret{"X.Y": NewSecret("header-value")},
		HeaderFiles: map[string]string{"Authorization": file("header-file")}, SecretFiles: []string{file("signing-1"), file("signing-2")},
	}}
	conf.Routes = []Route{{Handler: "copy", Config: map[string]any{
		"output": "out", "api_key": "free-key", "nested": map[string]any{"secrets": []any{"free-1", 42, map[string]any{"x": "free-2"}}, "plain": "free-plain"},
	}}}
	found, unread := conf.Secrets()
	if len(unread) > 0 {
		t.Errorf("unread: %v", unread)
	}
	want := []string{
		"sasl-password", "sasl-token", "tls-key", "admin-token", "postgres://anna:dsn-password@db/pawl", "dsn-password",
		"url-password", "url-key", "header-value", "header-file", "signing-1", "signing-2", "free-key", "free-1", "42", "free-2",
	}
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("found %q\nwant  %q", found, want)
	}

	conf.Postgres.DSN, conf.Postgres.DSNFile = Secret{}, file("host=db password='from file'")
	if found, _ := conf.Secrets(); !slices.Contains(found, "from file") || !slices.Contains(found, "host=db password='from file'") {
		t.Errorf("the file of a connection string: found %q", found)
	}
	conf.Admin.TokenFile = filepath.Join(folder, "gone")
	if _, unread := conf.Secrets(); len(unread) != 1 || !strings.HasPrefix(unread[0].Error(), "admin.token_file: open ") {
		t.Errorf("unread %v", unread)
	}
	if found, unread := Default().Secrets(); len(found)+len(unread) > 0 {
		t.Errorf("the defaults hold %q, %v", found, unread)
	}
}

// A setting that names a file is taken for one with a secret; one that does not is named here on purpose.
func TestSettingsThatNameFilesAreSecretOrKnown(t *testing.T) {
	t.Parallel()
	var public []string
	for _, s := range settings(reflect.ValueOf(sample())) {
		if strings.Contains(s.path, "file") && (!secretFileForm.MatchString(s.path) || publicFileForm.MatchString(s.path)) {
			public = append(public, s.path)
		}
	}
	if want := []string{"kafka.tls.ca_file", "kafka.tls.cert_file"}; !slices.Equal(public, want) {
		t.Errorf("files without secrets: %v, want %v", public, want)
	}
}
