package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestEndpointSeesEveryBodyAndKeepsConnections(t *testing.T) {
	t.Parallel()
	const callers, calls = 4, 50
	var mu sync.Mutex
	seen := map[string]int{}
	e, err := openEndpoint(t.Context(), func(body []byte) error {
		mu.Lock()
		defer mu.Unlock()
		seen[string(body)]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p := newPoster(e.url)
	var dials atomic.Int64
	transport := p.client.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for call := range calls {
				// Of every length around the buffer's, so that bodies come in one piece and in several.
				body := bodyOf(caller, int64(call), 3900+call*caller*4)
				if err := p.post(t.Context(), string(body)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	p.close()
	if err := e.close(); err != nil {
		t.Error(err)
	}
	// A few more than callers: the client dials while another connection becomes free.
	if len(seen) != callers*calls || dials.Load() > callers*calls/10 {
		t.Errorf("%d bodies over %d connections, want %d over a few", len(seen), dials.Load(), callers*calls)
	}
}

func TestEndpointAnswersRequestsThatComeTogether(t *testing.T) {
	t.Parallel()
	var seen []string
	e, err := openEndpoint(t.Context(), func(body []byte) error {
		seen = append(seen, string(body))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	connection, err := net.Dial("tcp", e.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	request := "POST / HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  2\r\n\r\n"
	if _, err := io.WriteString(connection, request+"ab"+request+"cd"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(connection)
	for range 2 {
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK || string(body) != "ok\n" {
			t.Errorf("answer %s %q, %v; want 200", response.Status, body, err)
		}
	}
	if err := errors.Join(connection.Close(), e.close()); err != nil {
		t.Error(err)
	}
	if strings.Join(seen, " ") != "ab cd" {
		t.Errorf("bodies %q, want ab and cd", seen)
	}
}

// A request that no peer makes fails the run.
func TestEndpointRefusesWhatItCannotRecord(t *testing.T) {
	t.Parallel()
	foreign := errors.New("none of ours")
	e, err := openEndpoint(t.Context(), func([]byte) error { return foreign })
	if err != nil {
		t.Fatal(err)
	}
	p := newPoster(e.url)
	if err := p.post(t.Context(), strings.Repeat("x", 100)); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("error %v, want one of status 400", err)
	}
	p.close()
	if err := e.close(); !errors.Is(err, foreign) {
		t.Errorf("error %v, want %v", err, foreign)
	}
}

func TestRequestsAreReadInPieces(t *testing.T) {
	t.Parallel()
	whole := []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX: y\r\n\r\nhello")
	for cut := range whole {
		if _, size, err := parseRequest(whole[:cut]); size != 0 || err != nil {
			t.Fatalf("%q: %d bytes, %v; want to wait for the rest", whole[:cut], size, err)
		}
	}
	body, size, err := parseRequest(append(bytes.Clone(whole), "POST"...))
	if string(body) != "hello" || size != len(whole) || err != nil {
		t.Errorf("body %q of %d bytes, %v; want hello of %d", body, size, err, len(whole))
	}
	for _, bad := range []string{
		"POST / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
		strings.Repeat("x", endpointHeadMax+1),
	} {
		if _, _, err := parseRequest([]byte(bad)); err == nil {
			t.Errorf("%.60q was taken", bad)
		}
	}
}
