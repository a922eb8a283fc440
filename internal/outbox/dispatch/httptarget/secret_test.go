package httptarget

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pawl/internal/outbox"
)

const (
	keyOne   = "first-key-first-key-first-key-1"
	keyTwo   = "second-key-second-key-second-ke2"
	keyThree = "third-key-third-key-third-key-th3"
)

// secretFile1 writes a key as a secret into a file of its own.
func secretFile1(t *testing.T, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, encoded(key)+"\n")
	return path
}

func encoded(key string) string { return secretPrefix + base64.StdEncoding.EncodeToString([]byte(key)) }

// write replaces a file as a whole, as secret stores do.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// signature is what the specification of Standard Webhooks says, written down once more.
func signature(key, id, seconds string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "%s.%s.%s", id, seconds, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// verify checks a call's signatures as a receiver does.
func verify(t *testing.T, got seen, keys ...string) {
	t.Helper()
	id, seconds := got.header.Get("webhook-id"), got.header.Get("webhook-timestamp")
	if id != source.ID(1).String() || id != got.header.Get("Idempotency-Key") {
		t.Errorf("webhook-id is %q", id)
	}
	if at, err := strconv.ParseInt(seconds, 10, 64); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
		t.Errorf("webhook-timestamp is %q", seconds)
	}
	var want []string
	for _, key := range keys {
		want = append(want, signature(key, id, seconds, got.body))
	}
	if diff := cmp.Diff(want, strings.Fields(got.header.Get("webhook-signature"))); diff != "" {
		t.Errorf("webhook-signature (-want +got):\n%s", diff)
	}
}

func TestCallIsSignedWithEverySecret(t *testing.T) {
	t.Parallel()
	r := receive(t, nil, nil)
	one, two := secretFile1(t, keyOne), secretFile1(t, keyTwo)
	send(t, open(t, r.URL, func(c *Config) { c.SecretFiles = []string{one} }), call(nil))
	send(t, open(t, r.URL, func(c *Config) { c.SecretFiles = []string{one, two} }), call(once))
	verify(t, r.seen()[0], keyOne)
	verify(t, r.seen()[1], keyOne, keyTwo)
}

// Between two attempts the operator replaces the secret. The receiver must see the same call under a
// new signature.
func TestSecretRotatedBetweenAttemptsSignsAnew(t *testing.T) {
	t.Parallel()
	r := receive(t, status(503), nil)
	file, told := secretFile1(t, keyOne), 0
	target := open(t, r.URL, func(c *Config) {
		c.SecretFiles = []string{file}
		c.Hooks.Secret = func(path string, err error) {
			if told++; path != file || err != nil {
				t.Errorf("hook: %s %v", path, err)
			}
		}
	})
	target.secrets.period = 0
	send(t, target, call(func(c *outbox.Call) { c.Attempt = 1 }))
	write(t, file, encoded(keyTwo))
	send(t, target, call(func(c *outbox.Call) { c.Attempt = 2 }))
	calls := r.seen()
	verify(t, calls[0], keyOne)
	verify(t, calls[1], keyTwo)
	sameBytes(t, [][]byte{calls[0].body, calls[1].body}, call(nil).Intent.Body)
	if told != 1 {
		t.Errorf("the hook was called %d times", told)
	}
}

// A renewal is caught half way: the file is gone, empty or no secret for a while.
func TestLastGoodSecretStaysInUse(t *testing.T) {
	t.Parallel()
	file := secretFile1(t, keyOne)
	var told []string
	s, err := openSecrets([]string{file}, func(_ string, err error) { told = append(told, strconv.FormatBool(err != nil)) })
	if err != nil {
		t.Fatal(err)
	}
	s.period = 0
	now := time.Now()
	uses := func(key string) {
		t.Helper()
		if got := s.sign(now, "id", "1", []byte("b")); got != signature(key, "id", "1", []byte("b")) {
			t.Errorf("signed with another key than %s", key)
		}
	}
	uses(keyOne)
	for _, bad := range []string{"", "whsec_", "whsec_!!!", keyOne, encoded("short"), strings.Repeat(encoded(keyTwo), 200)} {
		write(t, file, bad)
		uses(keyOne)
		uses(keyOne) // and tells it once
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	uses(keyOne)
	write(t, file, encoded(keyOne))
	uses(keyOne)
	write(t, file, encoded(keyThree))
	uses(keyThree)
	uses(keyThree)
	// As many different reasons as there are, then that all is well again, then the new one.
	if strings.Join(told, " ") != strings.Repeat("true ", 7)+"false false" {
		t.Errorf("told: %v", told)
	}
}

func TestSecretFilesAreLookedAtOnceASecond(t *testing.T) {
	t.Parallel()
	for after, key := range map[time.Duration]string{filePeriod - 1: keyOne, filePeriod: keyTwo} {
		file := secretFile1(t, keyOne)
		s, err := openSecrets([]string{file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, encoded(keyTwo))
		if got := s.sign(s.looked.Add(after), "id", "1", nil); got != signature(key, "id", "1", nil) {
			t.Errorf("after %s another key than %s is in use", after, key)
		}
	}
}

func TestSecretsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", keyOne, base64.StdEncoding.EncodeToString([]byte(keyOne)), "whsec_" + keyOne + "!", encoded("too-short"), encoded(strings.Repeat("x", 65)), "whsec_",
	} {
		path := filepath.Join(t.TempDir(), "secret")
		write(t, path, bad)
		_, err := New(Config{URL: "https://pay.example", Concurrency: 1, SecretFiles: []string{path}})
		if err == nil || !strings.Contains(err.Error(), path) || bad != "" && strings.Contains(err.Error(), strings.TrimPrefix(bad, "whsec_")) && bad != "whsec_" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	good := secretFile1(t, keyOne)
	if _, err := New(Config{URL: "https://pay.example", Concurrency: 1, SecretFiles: []string{good, good, good}}); err == nil {
		t.Error("three secrets are accepted")
	}
	unpadded := filepath.Join(t.TempDir(), "secret")
	write(t, unpadded, strings.TrimRight(encoded(keyOne), "="))
	if _, err := New(Config{URL: "https://pay.example", Concurrency: 1, SecretFiles: []string{unpadded}}); err != nil {
		t.Errorf("base64 without padding: %v", err)
	}
}
