package httpcoalesce_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

type directive struct {
	name, value string
	hasValue    bool
}

func parse(lines ...string) (all []directive, ok bool) {
	ok = httpcoalesce.ParseDirectives(lines, func(name, value string, hasValue bool) {
		all = append(all, directive{name, value, hasValue})
	})
	return all, ok
}

func TestParseDirectives(t *testing.T) {
	for text, want := range map[string][]directive{
		"":                                nil,
		" , ,\t":                          nil,
		"no-store":                        {{"no-store", "", false}},
		"NO-Store, max-AGE=5":             {{"no-store", "", false}, {"max-age", "5", true}},
		"a,b\t,\tc":                       {{"a", "", false}, {"b", "", false}, {"c", "", false}},
		`private="a, b", public`:          {{"private", "a, b", true}, {"public", "", false}},
		`x="a\"b\\c",y`:                   {{"x", `a"b\c`, true}, {"y", "", false}},
		`x=""`:                            {{"x", "", true}},
		"x=\"\t\xff\"":                    {{"x", "\t\xff", true}},
		"extension=\"no-store\", max-age": {{"extension", "no-store", true}, {"max-age", "", false}},
	} {
		got, ok := parse(text)
		require.True(t, ok, "%q", text)
		require.Equal(t, want, got, "%q", text)
	}
	for _, text := range []string{"=", "a=", "a =1", "a= 1", `a="`, `a="\`, `a="x"y`, `"a"`, "a b", "a;b", "a=1=2", "ä", "a=ä", "a=\"\x00\"", "a=\"\\\x01\"", "a, =b", "a\x00"} {
		_, ok := parse(text)
		require.False(t, ok, "%q", text)
	}
}

// grammar is Cache-Control in RFC 9110, sections 5.6.1 to 5.6.4, and RFC 9111, 5.2.
var grammar = func() *regexp.Regexp {
	token := "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
	quoted := `"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"`
	element := "(?:" + token + "(?:=(?:" + token + "|" + quoted + "))?)?"
	return regexp.MustCompile("^[ \t]*" + element + "(?:[ \t]*,[ \t]*" + element + ")*[ \t]*$")
}()

// latin1 makes each byte a rune, since regexp knows runes only.
func latin1(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

// FuzzDirectives compares the parser with the grammar, and what it parsed with what
// it parses when that is written down again.
func FuzzDirectives(f *testing.F) {
	for _, s := range []string{"", "no-store", `private="x, y", max-age=5`, `a="\"`, "a=,b", "max-age =5", "a\tb", "\xff", `x="\ÿ"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parse(text)
		require.Equal(t, grammar.MatchString(latin1(text)), ok, "%q", text)
		if !ok {
			return
		}
		var again []string
		for _, d := range got {
			require.Equal(t, strings.ToLower(d.name), d.name)
			if d.hasValue {
				d.name += `="` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(d.value) + `"`
			}
			again = append(again, d.name)
		}
		for _, lines := range [][]string{again, {strings.Join(again, ",")}} {
			same, ok := parse(lines...)
			require.True(t, ok)
			require.Equal(t, got, same)
		}
	})
}

func TestParseVary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"Foo", "foo", "FOO-bar", "Accept", "x", ""})
		lists := rapid.SliceOf(rapid.SliceOf(name)).Draw(t, "names")
		var lines, want []string
		for _, l := range lists {
			lines = append(lines, strings.Join(l, rapid.SampledFrom([]string{",", ", ", " ,\t"}).Draw(t, "comma")))
			for _, n := range l {
				if n != "" {
					want = append(want, http.CanonicalHeaderKey(n))
				}
			}
		}
		slices.Sort(want)
		got, ok := httpcoalesce.ParseVary(lines)
		require.True(t, ok)
		require.Equal(t, slices.Compact(want), got)
		for _, bad := range []string{"*", " *", "a b", "a;", "a, *", "\x00"} {
			_, ok := httpcoalesce.ParseVary(append(lines, bad))
			require.False(t, ok)
		}
	})
}
