package cluster

import (
	"strings"
	"testing"
)

func TestListenerRefusesWhatItCannotWrite(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sasl SASL
		want string
	}{
		"good":              {SASL{Mechanisms: []string{"PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"}, Users: []User{{"one", "two"}}}, ""},
		"unknown mechanism": {SASL{Mechanisms: []string{"GSSAPI"}}, "GSSAPI"},
		"quote in password": {SASL{Users: []User{{"one", `a"b`}}}, "one"},
		"comma in name":     {SASL{Users: []User{{"a,b", "two"}}}, "a,b"},
		"no password":       {SASL{Users: []User{{"one", ""}}}, "one"},
	} {
		err := Listener{SASL: &test.sasl}.validate()
		if err == nil && test.want != "" || err != nil && (test.want == "" || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// Java reads a backslash as the start of an escape and a line's end as the end of the value.
func TestPropertiesAreEscaped(t *testing.T) {
	t.Parallel()
	got := string(renderProperties(map[string]string{"b": "first\nsecond", "a": `C:\new`}))
	if want := "a=C:\\\\new\nb=first\\nsecond\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnusableSettingsAreRefused(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]KafkaConfig{
		"nodes":    {Nodes: 10},
		"negative": {Nodes: -1},
		"version":  {Version: "../4.3.1"},
		"listener": {Listener: Listener{SASL: &SASL{Mechanisms: []string{"GSSAPI"}}}},
	} {
		if k, err := OpenKafka(t.Context(), config); err == nil {
			_ = k.Close()
			t.Errorf("%s: opened", name)
		}
	}
}
