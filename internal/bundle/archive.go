package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"

	"pawl/internal/redact"
)

// Name names an archive: the same facts give the same name. It is also the one folder in it.
func (m Manifest) Name() string {
	name := "pawl-bundle-"
	if m.Application != "" {
		name += plain(m.Application) + "-"
	}
	return name + m.Made.UTC().Format("20060102T150405Z")
}

var oddForm = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// plain makes a name of a file of any text.
func plain(text string) string { return oddForm.ReplaceAllString(text, "_") }

// Folder is the path of a file that is one of several things' own, such as the status of a process.
func Folder(kind, name, file string) string { return path.Join(kind, plain(name), file) }

// Write packs the bundle, the manifest first, as gzipped tar.
func (b *Bundle) Write(w io.Writer, redactor *redact.Redactor) error {
	manifest := new(bytes.Buffer)
	encoder := json.NewEncoder(manifest)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(b.Manifest); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	packed := gzip.NewWriter(w)
	archive := tar.NewWriter(packed)
	err := b.add(archive, "manifest.json", redactor.Bytes(manifest.Bytes()))
	for i, entry := range b.Manifest.Pieces {
		if err == nil && b.texts[i] != nil {
			err = b.add(archive, entry.Path, b.texts[i])
		}
	}
	if err := errors.Join(err, archive.Close(), packed.Close()); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func (b *Bundle) add(archive *tar.Writer, name string, text []byte) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(b.Manifest.Name(), name), Size: int64(len(text)), Mode: 0o600,
		ModTime: b.Manifest.Made, Format: tar.FormatPAX,
	}
	err := archive.WriteHeader(header)
	if err == nil {
		_, err = archive.Write(text)
	}
	return err
}

// WriteFile packs the bundle into a new file that only its owner may read. A file that is there already is left as
// it is.
func (b *Bundle) WriteFile(file string, redactor *redact.Redactor) error {
	var packed bytes.Buffer
	if err := b.Write(&packed, redactor); err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names it
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("write archive: %s is there already: name another with --file", file)
	}
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	_, err = out.Write(packed.Bytes())
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write archive: %w", errors.Join(err, os.Remove(file))) // half an archive is none
	}
	return nil
}
