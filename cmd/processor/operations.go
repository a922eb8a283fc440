package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	answerBytesMax = 64 << 10 // of an answer that is a sentence or two
	pageBytesMax   = 16 << 20 // of one that is read whole, such as /metrics
)

// operations speaks to the operations HTTP of a running process.
type operations struct {
	base *url.URL
}

// operationsAt takes what --url gave.
func operationsAt(text string) (operations, error) {
	base, err := url.Parse(text)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return operations{}, usage(fmt.Errorf("--url is %q, want one such as http://127.0.0.1:9090", text))
	}
	return operations{base: base}, nil
}

// instances finds the processes that --admin names, each once. Where it names none it is the one of this machine.
func instances(admin []string, listen string) ([]operations, error) {
	if len(admin) == 0 {
		one, err := operationsOf(listen)
		return []operations{one}, err
	}
	var found []operations
	seen := map[string]bool{}
	for _, text := range admin {
		base := &url.URL{Scheme: "http", Host: text}
		if strings.Contains(text, "://") {
			parsed, err := url.Parse(text)
			if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") {
				return nil, usage(fmt.Errorf("--admin is %q, want host:port or a URL such as https://pawl-0.pawl:9090", text))
			}
			base = parsed
		}
		if host, port, err := net.SplitHostPort(base.Host); err != nil || host == "" || port == "" {
			return nil, usage(fmt.Errorf("--admin is %q, want host:port or a URL such as https://pawl-0.pawl:9090", text))
		}
		if !seen[base.Host] {
			seen[base.Host] = true
			found = append(found, operations{base: base})
		}
	}
	return found, nil
}

// name tells one process from the others.
func (o operations) name() string { return o.base.Host }

// operationsOf finds a process on this machine by what its admin.listen says.
func operationsOf(listen string) (operations, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return operations{}, usage(fmt.Errorf("admin.listen is %q, want host:port: %w", listen, err))
	}
	if port == "0" {
		return operations{}, usage(fmt.Errorf("admin.listen is %q, which lets the process choose its port: give --url, the first line of the process's log names the address", listen))
	}
	switch host { // "all addresses" is nothing that one could dial
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return operations{base: &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}}, nil
}

// ask makes one request and returns the status and the text of the answer. token and body may be
// empty.
func (o operations) ask(ctx context.Context, method, path, token string, body []byte) (code int, text string, err error) {
	answer, err := o.send(ctx, method, path, token, body, answerBytesMax)
	if err != nil {
		return 0, "", err
	}
	return answer.code, explain(answer.kind, answer.body), nil
}

// get reads a page whole. path may have a query.
func (o operations) get(ctx context.Context, path string) (answer, error) {
	page, err := o.send(ctx, http.MethodGet, path, "", nil, pageBytesMax)
	if err == nil && len(page.body) == pageBytesMax {
		err = fmt.Errorf("read answer of %s: %s has more than %d MiB", o.base.Redacted(), path, pageBytesMax>>20)
	}
	return page, err
}

// answer is what a process said.
type answer struct {
	code int
	kind string // of content
	body []byte
}

// send makes one request and reads at most limit bytes of the answer.
func (o operations) send(ctx context.Context, method, path, token string, body []byte, limit int64) (answer, error) {
	path, query, _ := strings.Cut(path, "?")
	target := o.base.JoinPath(path)
	target.RawQuery = query
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("make request: %w", err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{
		// Neither a proxy nor a kept connection: one question to a process nearby.
		Transport: &http.Transport{DisableKeepAlives: true},
		// The token goes to the address that was named and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		if inner, is := errors.AsType[*url.Error](err); is {
			err = inner.Err
		}
		return answer{}, fmt.Errorf("ask %s: %w", o.base.Redacted(), err)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, limit))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return answer{}, fmt.Errorf("read answer of %s: %w", o.base.Redacted(), err)
	}
	return answer{response.StatusCode, response.Header.Get("Content-Type"), text}, nil
}

// explain takes the sentence for a person out of a problem (RFC 9457), else the text as it is.
func explain(kind string, answer []byte) string {
	if strings.HasPrefix(kind, "application/problem+json") {
		var problem struct{ Detail string }
		if json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
			return problem.Detail
		}
	}
	return strings.TrimSpace(string(answer))
}
