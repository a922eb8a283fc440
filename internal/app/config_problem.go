package app

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// OriginKind says which layer a value comes from. Later ones win over earlier ones.
type OriginKind int

// The layers.
const (
	FromDefault OriginKind = iota
	FromFile
	FromEnv
	FromSet
)

// Origin says where a value comes from.
type Origin struct {
	Kind OriginKind
	// Name is the file, the environment variable or the path that --set was given; for a default it
	// is empty or says what the default was taken from.
	Name         string
	Line, Column int // in the file, from 1; in characters
}

// String gives what `config print` writes behind a value.
func (o Origin) String() string {
	switch o.Kind {
	case FromFile:
		return o.Name + ":" + strconv.Itoa(o.Line)
	case FromEnv:
		return "env " + o.Name
	case FromSet:
		return "--set"
	case FromDefault:
		if o.Name != "" {
			return "default: " + o.Name
		}
	}
	return "default"
}

// prefix says where a problem is: file:line:col, or the operator's own words for the other layers.
func (o Origin) prefix() string {
	switch o.Kind {
	case FromFile:
		if o.Line == 0 {
			return o.Name + ": "
		}
		return fmt.Sprintf("%s:%d:%d: ", o.Name, o.Line, o.Column)
	case FromEnv:
		return "env " + o.Name + ": "
	case FromSet:
		return strings.TrimSpace("--set "+o.Name) + ": "
	case FromDefault:
	}
	return ""
}

// Problem is one thing that is wrong with the configuration, or, as a warning, one that is probably
// not meant so.
type Problem struct {
	Origin  Origin
	Path    string // of the setting, as --set takes it; empty where no setting is concerned
	Text    string // what is wrong and what is wanted
	Excerpt string // the line of the file with a caret below; empty outside of files
	Warning bool

	paths  []string // all settings concerned; the problem is shown at the first that somebody set
	absent bool     // a value is missing
}

// String gives file:line:col: path: problem.
func (p Problem) String() string {
	text := p.Origin.prefix()
	if p.Path != "" && (p.Origin.Kind != FromSet || p.Origin.Name != p.Path) {
		text += p.Path + ": "
	}
	return visible(text + p.Text)
}

// visible replaces what is not printable: it might command the terminal or break the line.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// Problems is the error of a configuration that is wrong: everything that is, not only the first.
type Problems []Problem

// Error gives one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// sort orders problems as an operator works through them: the file from top to bottom, then the
// environment, --set, and what is missing everywhere.
func (p Problems) sort() {
	rank := func(o Origin) int { return (int(o.Kind) + int(FromSet)) % (int(FromSet) + 1) }
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank(a.Origin), rank(b.Origin)),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
			strings.Compare(a.Origin.Name, b.Origin.Name),
			strings.Compare(a.Path, b.Path),
		)
	})
}

const excerptRunesMax = 120

// excerpt shows a line of the source with a caret below the column. Whatever may be a secret is
// hidden: the excerpt goes to terminals and build logs.
func excerpt(lines []string, line, column int) string {
	if line < 1 || line > len(lines) {
		return ""
	}
	text := []rune(visible(strings.TrimRight(concealed(lines, line), " \t\r")))
	at := min(column-1, len(text))
	if len(text) > excerptRunesMax {
		from := min(max(0, at-excerptRunesMax/2), len(text)-excerptRunesMax)
		text, at = text[from:from+excerptRunesMax], at-from
	}
	blank := []rune(strings.Repeat(" ", at))
	for i := range blank {
		if text[i] == '\t' {
			blank[i] = '\t' // as wide as the tab above it
		}
	}
	number := strconv.Itoa(line)
	return fmt.Sprintf("%5s | %s\n%5s | %s^", number, string(text), "", string(blank))
}

var (
	headersForm   = regexp.MustCompile(`(^|[\s{,])["']?headers["']?\s*:`)
	keyForm       = regexp.MustCompile(`([A-Za-z0-9_.-]+)["']?\s*:\s+`)
	sensitiveForm = regexp.MustCompile(`(?i)passw|secret|token|dsn|credential|api[_-]?key|private|authorization|cookie|^headers$`)
	fileForm      = regexp.MustCompile(`_files?$`)
	userForm      = regexp.MustCompile(`://[^/\s@]*@`)
)

// concealed gives a line without what may be a secret. The values of headers are some, whatever their names.
func concealed(lines []string, number int) string {
	line := lines[number-1]
	depth, levels := indent(line), 0
	for _, above := range slices.Backward(lines[:number-1]) {
		if strings.TrimSpace(above) == "" || indent(above) >= depth {
			continue
		}
		depth = indent(above)
		levels++
		if !headersForm.MatchString(above) {
			continue
		}
		if match := keyForm.FindStringIndex(line); match != nil && levels == 1 {
			return line[:match[1]] + hidden
		}
		return line[:indent(line)] + hidden
	}
	return conceal(line)
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// conceal hides the user part of URLs and everything behind a key that sounds like a secret, be it
// a known key or not; names of files are no secrets.
func conceal(line string) string {
	for _, match := range keyForm.FindAllStringSubmatchIndex(line, -1) {
		key, end := line[match[2]:match[3]], match[1]
		if sensitiveForm.MatchString(key) && !fileForm.MatchString(key) && end < len(line) {
			line = line[:end] + hidden
			break
		}
	}
	return userForm.ReplaceAllString(line, "://"+hidden+"@")
}

// nearest finds the candidate that word was probably meant to be, or "". The distance that is
// tolerated grows with the word.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", min(len(word)/2, 3)+1
	for _, candidate := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is Levenshtein's: the least number of insertions, deletions and replacements.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
