package admin

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the page loads is its own, by addresses that also work below a prefix that a proxy takes away. Nothing
// stands in it that its policy would refuse.
func TestPageLoadsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	answer := s.get(t, "/")
	body := answer.Body.String()
	policy := strings.Split(answer.Header().Get("Content-Security-Policy"), "; ")
	for _, want := range []string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'",
		"form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
	} {
		if !slices.Contains(policy, want) {
			t.Errorf("the policy %q has no %s", policy, want)
		}
	}
	if strings.Contains(strings.Join(policy, " "), "unsafe") || strings.Contains(strings.Join(policy, " "), "*") {
		t.Errorf("the policy %q lets too much in", policy)
	}
	for _, refused := range []string{`<style`, `style="`, `<script>`, `javascript:`} {
		if strings.Contains(body, refused) {
			t.Errorf("the page has %s, which its policy refuses", refused)
		}
	}
	if handler := regexp.MustCompile(`\son[a-z]+=`).FindString(body); handler != "" {
		t.Errorf("the page has the inline handler %q", handler)
	}
	found := 0
	for _, match := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(body, -1) {
		found++
		if strings.Contains(match[1], ":") || strings.HasPrefix(match[1], "/") {
			t.Errorf("%q is no address of this server below its prefix", match[1])
		}
		if got := s.get(t, "/"+strings.ReplaceAll(match[1], "&amp;", "&")); got.Code != http.StatusOK {
			t.Errorf("%q answers %d", match[1], got.Code)
		}
	}
	if found < 10 {
		t.Errorf("only %d addresses were found in the page", found)
	}
}

func TestAssetsHaveTheirTypes(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for name, kind := range assets {
		answer := s.get(t, "/assets/"+name)
		if answer.Code != http.StatusOK || answer.Header().Get("Content-Type") != kind || answer.Body.Len() == 0 {
			t.Errorf("%s: status %d, type %q, %d bytes", name, answer.Code, answer.Header().Get("Content-Type"), answer.Body.Len())
		}
		if answer.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be taken for something else", name)
		}
	}
	wantProblem(t, s.get(t, "/assets/index.html"), http.StatusNotFound, "index.html") // a template, and no page of its own
	wantProblem(t, s.get(t, "/assets/"), http.StatusNotFound, "assets")
}

// Where an order can't be given there is no button for it.
func TestPageOffersOnlyWhatThisProcessTakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Config)
		want   map[string]bool
	}{
		"no token": {
			func(c *Config) { c.TokenFile = "" },
			map[string]bool{"<button": false, "<dialog": false, "admin.token_file": true},
		},
		"no ledger": {
			func(*Config) {},
			map[string]bool{`id="drain"`: true, `id="effect-look"`: false, `id="found"`: false, `id="audit"`: false},
		},
		"all": {
			func(c *Config) { c.Effects = &fakeEffects{} },
			map[string]bool{`id="drain"`: true, `id="effect-look"`: true, `id="audit-look"`: true, `id="confirm"`: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := open(t, c.change).get(t, "/").Body.String()
			for text, want := range c.want {
				if strings.Contains(body, text) != want {
					t.Errorf("%s in the page: %v, want %v", text, !want, want)
				}
			}
		})
	}
}

func TestConfigurationIsShown(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) {
		c.Settings = []map[string]string{{"path": "kafka.brokers", "origin": "default"}}
	})
	answer := s.get(t, "/api/v1/config")
	if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), `"path": "kafka.brokers"`) {
		t.Errorf("status %d: %s", answer.Code, answer.Body)
	}
}

// The token is nowhere in what is read without it.
func TestPageHoldsNoToken(t *testing.T) {
	t.Parallel()
	s := open(t, func(c *Config) { c.Effects = &fakeEffects{} })
	for _, target := range []string{"/", "/assets/page.js", "/api/v1/view", "/api/v1/config", "/api/v1/status"} {
		if body := s.get(t, target).Body.String(); strings.Contains(body, token) {
			t.Errorf("%s gives the token away: %s", target, body)
		}
	}
}
