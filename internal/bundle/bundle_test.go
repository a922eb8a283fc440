package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pawl/internal/redact"
)

func text(s string) func(context.Context) (Content, error) {
	return func(context.Context) (Content, error) { return Content{Text: []byte(s)}, nil }
}

func made(pieces ...Piece) Config {
	return Config{
		Manifest: Manifest{Application: "shop", Made: time.Date(2026, 11, 29, 22, 0, 0, 0, time.UTC)},
		Pieces:   pieces, Redactor: redact.New(nil), BytesMax: 1 << 20, Timeout: time.Minute,
	}
}

// unpack gives the files of an archive by their names, and the names in their order.
func unpack(t *testing.T, packed io.Reader) (files map[string]string, order []string) {
	t.Helper()
	stream, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, order
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if header.Mode != 0o600 || header.Uid != 0 || header.Uname != "" {
			t.Errorf("%s has mode %o and owner %d %q", header.Name, header.Mode, header.Uid, header.Uname)
		}
		files[header.Name], order = string(body), append(order, header.Name)
	}
}

func TestAPieceThatFailsStopsNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		bundle, err := Collect(t.Context(), made(
			Piece{Path: "a.txt", Collect: text("all is well")},
			Piece{Path: "b.txt", Collect: func(context.Context) (Content, error) { return Content{}, errors.New("refused") }},
			Piece{Path: "c.txt", Collect: func(context.Context) (Content, error) { panic("a bug") }},
			Piece{Path: "d.txt", Collect: func(ctx context.Context) (Content, error) { <-ctx.Done(); return Content{}, ctx.Err() }},
			Piece{Path: "e.txt", Collect: func(context.Context) (Content, error) { <-release; return Content{}, nil }},
			Piece{Path: "f.txt", Skip: "not asked for"},
			Piece{Path: "g.txt", Collect: func(context.Context) (Content, error) {
				return Content{Text: []byte("half"), Finding: "one hangs"}, errors.New("the other half")
			}},
			Piece{Path: "h.txt", Collect: text("still here")},
		))
		if err != nil {
			t.Fatal(err)
		}
		var packed bytes.Buffer
		if err := bundle.Write(&packed, redact.New(nil)); err != nil {
			t.Fatal(err)
		}
		files, order := unpack(t, &packed)
		const folder = "pawl-bundle-shop-20261129T220000Z/"
		if want := []string{folder + "manifest.json", folder + "a.txt", folder + "g.txt", folder + "h.txt"}; strings.Join(order, " ") != strings.Join(want, " ") {
			t.Errorf("the archive holds %v, want %v", order, want)
		}
		if files[folder+"h.txt"] != "still here" {
			t.Errorf("h.txt is %q", files[folder+"h.txt"])
		}
		var manifest Manifest
		if err := json.Unmarshal([]byte(files[folder+"manifest.json"]), &manifest); err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			state State
			why   string
		}{
			{Collected, ""},
			{Failed, "refused"},
			{Failed, "panic: a bug of this program: a bug"},
			{Failed, "no answer in the time that --timeout gives: context deadline exceeded"},
			{Failed, "no answer in the time that --timeout gives"},
			{Skipped, "not asked for"},
			{Failed, "the other half"},
			{Collected, ""},
		} {
			if got := manifest.Pieces[i]; got.State != want.state || got.Why != want.why {
				t.Errorf("%s: %s %q, want %s %q", got.Path, got.State, got.Why, want.state, want.why)
			}
		}
		if manifest.Complete() || manifest.Pieces[6].Finding != "one hangs" || manifest.Took != (time.Minute+stragglerMax).Seconds() {
			t.Errorf("manifest %+v", manifest)
		}
	})
}

func TestOperatorWhoGivesUpGetsNoArchive(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Collect(ctx, made(Piece{Path: "a.txt", Collect: text("x")})); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// What came first is kept, a log loses its beginning, and nothing else is cut.
func TestSizeIsBounded(t *testing.T) {
	t.Parallel()
	config := made(
		Piece{Path: "facts.json", Collect: text("0123456789")},
		Piece{Path: "large.json", Collect: text(strings.Repeat("x", 100))},
		Piece{Path: "log", Tail: true, Collect: text("first line\nsecond line\nthird\n")},
		Piece{Path: "late.log", Tail: true, Collect: text("no room")},
	)
	config.BytesMax = 30
	bundle, err := Collect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	facts, large, log, late := bundle.Manifest.Pieces[0], bundle.Manifest.Pieces[1], bundle.Manifest.Pieces[2], bundle.Manifest.Pieces[3]
	if facts.State != Collected || facts.Bytes != 10 || len(facts.SHA256) != 64 {
		t.Errorf("facts: %+v", facts)
	}
	if large.State != Failed || large.Why != "it has 100 bytes and there was room for 20: raise --size" || bundle.texts[1] != nil {
		t.Errorf("large: %+v", large)
	}
	if !log.Cut || string(bundle.texts[2]) != "second line\nthird\n" {
		t.Errorf("log: %+v %q", log, bundle.texts[2])
	}
	if !late.Cut || late.Bytes != 0 {
		t.Errorf("late: %+v", late)
	}
}

func TestArchiveIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	bundle, err := Collect(t.Context(), made(Piece{Path: "a.txt", Collect: text("x")}))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.tar.gz")
	if err := bundle.WriteFile(file, redact.New(nil)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteFile(file, redact.New(nil)); err == nil || !strings.Contains(err.Error(), "is there already: name another with --file") {
		t.Errorf("error %v", err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the first archive was changed: %v", err)
	}
	if err := bundle.WriteFile(filepath.Join(file, "b"), redact.New(nil)); err == nil {
		t.Error("no error where no file can be made")
	}
}

// The same facts give the same bytes.
func TestArchiveIsDeterministic(t *testing.T) {
	t.Parallel()
	bundle, err := Collect(t.Context(), made(Piece{Path: "a.txt", Collect: text("x")}, Piece{Path: "b.txt", Collect: text("y")}))
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := errors.Join(bundle.Write(&first, redact.New(nil)), bundle.Write(&second, redact.New(nil))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two writes differ")
	}
	if got := (Manifest{Application: "../a b", Made: bundle.Manifest.Made}).Name(); got != "pawl-bundle-.._a_b-20261129T220000Z" {
		t.Errorf("name %q", got)
	}
	if got := Folder("instances", "[::1]:9090", "status.json"); got != "instances/_1_9090/status.json" {
		t.Errorf("folder %q", got)
	}
}
