package main

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// writeArchive writes the layout as a tar whose index.json has one entry, the image of all platforms: so skopeo, crane and podman
// find it without a name, and its digest is that of the image wherever it is pushed.
func (r release) writeArchive(out string, index v1.ImageIndex) (err error) {
	folder, err := os.MkdirTemp("", "pawl-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": r.tag,
		"io.containerd.image.name":          "docker.io/" + repository + ":" + r.tag, // what docker load calls it
	}))
	if err != nil {
		return err
	}
	file, err := os.Create(out) //nolint:gosec // the caller's file
	if err != nil {
		return err
	}
	writer := tar.NewWriter(file)
	return errors.Join(r.archive(writer, os.DirFS(folder)), writer.Close(), file.Close())
}

// archive walks in the order of names, which is the same everywhere.
func (r release) archive(writer *tar.Writer, folder fs.FS) error {
	return fs.WalkDir(folder, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if entry.IsDir() {
			return writeFile(writer, file{path: path + "/", mode: 0o755}, r.at)
		}
		body, err := fs.ReadFile(folder, path)
		if err != nil {
			return err
		}
		return writeFile(writer, file{path: path, mode: 0o644, body: body}, r.at)
	})
}
