package redact

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRedactorHidesSecretsAndNothingElse(t *testing.T) {
	t.Parallel()
	r := New([]string{
		"hunter2-hunter2", `quo"te\d pass`, "p@ss/w%rd more", "1234", "hunter2-hunter2-longer", "abc", "",
		"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----\n",
	})
	for name, test := range map[string]struct{ text, want string }{
		"plain":                  {"a hunter2-hunter2 b", "a *** b"},
		"the longer wins":        {"hunter2-hunter2-longer", "***"},
		"in JSON":                {`{"a": "quo\"te\\d pass"}`, `{"a": "***"}`},
		"in JSON within JSON":    {`{"a": "{\"b\":\"quo\\\"te\\\\d pass\"}"}`, `{"a": "{\"b\":\"***\"}"}`},
		"in a query":             {"/x?p=p%40ss%2Fw%25rd+more&q=1", "/x?p=***&q=1"},
		"in a path":              {"/p@ss%2Fw%25rd%20more/", "/***/"},
		"base64":                 {"Basic aHVudGVyMi1odW50ZXIy", "Basic ***"},
		"short is a word":        {`lag 1234, offset 12345, {"a": 51234}`, `lag ***, offset 12345, {"a": 51234}`},
		"too short":              {"abc", "abc"},
		"a line of a key":        {"key BKcwggSjAgEAAoIBAQC7", "key ***"},
		"user of any URL":        {"dial postgres://anna:s3cr3t@db:5432/x: refused", "dial postgres://***@db:5432/x: refused"},
		"no user":                {`{"url":"http://host:80","to":"a@b"}`, `{"url":"http://host:80","to":"a@b"}`},
		"bearer":                 {"Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"},
		"connection string":      {"host=db user=a password=xyz dbname=c", "host=db user=a password=*** dbname=c"},
		"API key":                {`"GET /v1?api_key=k1&x=2"`, `"GET /v1?api_key=***&x=2"`},
		"metrics stay":           {`processor_records_total{outcome="committed"} 1.5e+06`, `processor_records_total{outcome="committed"} 1.5e+06`},
		"words about them, too":  {`the token is refused, password_file: /run/x`, `the token is refused, password_file: /run/x`},
		"key markers are public": {"-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----"},
	} {
		if got := r.String(test.text); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if r.Ignored != 1 {
		t.Errorf("%d ignored, want abc alone", r.Ignored)
	}
	if New(nil).Bytes(nil) != nil {
		t.Error("nothing became something")
	}
}

// However a secret looks and in whatever form it stands, it is not there afterwards.
func TestRedactorHidesAnySecretInAnyForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := strings.TrimSpace(rapid.StringN(wordMax+1, 64, 256).Draw(t, "secret"))
		if len([]rune(secret)) <= wordMax {
			t.Skip("looked for as a word only")
		}
		if strings.ContainsRune(secret, '\uFFFD') || strings.ContainsAny(secret, "\r\n") {
			t.Skip("no text of one line")
		}
		inner, err := json.Marshal(map[string]string{"a": secret})
		if err != nil {
			t.Fatal(err)
		}
		r := New([]string{secret})
		for _, form := range []string{
			secret, url.QueryEscape(secret), url.PathEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret)), jsonForm(secret, false), jsonForm(string(inner), false), jsonForm(string(inner), true),
		} {
			got := r.String("before " + form + " after")
			if strings.Contains(got, secret) || strings.Contains(got, form) && form != hidden {
				t.Fatalf("%q is left in %q", secret, got)
			}
		}
	})
}
