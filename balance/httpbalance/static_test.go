package httpbalance_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// urlsOf returns ID and URL of each backend.
func urlsOf(set []balance.Backend[*url.URL]) [][2]string {
	var all [][2]string
	for _, b := range set {
		all = append(all, [2]string{b.ID, b.Value.String()})
	}
	return all
}

func TestStaticListsBecomeBackends(t *testing.T) {
	t.Parallel()
	set, err := httpbalance.Static("http://10.0.0.1", " https://B.example.com ", "http://[::1]:8080/", "http://10.0.0.1:80/v1", "http://10.0.0.1/v%2F2/")
	require.NoError(t, err)
	require.Equal(t, [][2]string{
		{"10.0.0.1:80", "http://10.0.0.1:80"},
		{"b.example.com:443", "https://b.example.com:443"},
		{"[::1]:8080", "http://[::1]:8080/"},
		{"10.0.0.1:80/v1", "http://10.0.0.1:80/v1"},
		{"10.0.0.1:80/v%2F2", "http://10.0.0.1:80/v%2F2/"},
	}, urlsOf(set))
	set, err = httpbalance.Static()
	require.NoError(t, err)
	require.Empty(t, set)
}

func TestStaticNamesTheEntryThatIsWrong(t *testing.T) {
	t.Parallel()
	for bad, want := range map[string]string{
		"":                     `"": the scheme is "", expected http or https`,
		"10.0.0.1:80":          `"10.0.0.1:80": first path segment in URL cannot contain colon`,
		"localhost:80":         `"localhost:80": the scheme is "localhost", expected http or https`,
		"ftp://a":              `"ftp://a": the scheme is "ftp", expected http or https`,
		"http:a":               `"http:a": there is no host, expected one after ://`,
		"http://:80":           `"http://:80": there is no host, expected one after ://`,
		"http://a:0":           `"http://a:0": the port is 0, expected 1 to 65535`,
		"http://a:65536":       `"http://a:65536": the port is 65536, expected 1 to 65535`,
		"http://a:x":           `"http://a:x": invalid port ":x" after host`,
		"http://u:secret@a":    `"http://u:secret@a": there is a user, expected none: set the header Authorization in the requests`,
		"http://a?":            `"http://a?": there is a query, expected none`,
		"http://a/b?q":         `"http://a/b?q": there is a query, expected none`,
		"http://a#f":           `"http://a#f": there is a fragment, expected none`,
		"http://first:80":      `"http://first:80": the same backend as number 0, "http://first"`,
		"https://FIRST:80":     `"https://FIRST:80": the same backend as number 0, "http://first"`,
		"http://%zz":           `"http://%zz": invalid URL escape "%zz"`,
		"http://a/\x7fcontrol": `"http://a/\x7fcontrol": net/url: invalid control character in URL`,
	} {
		_, err := httpbalance.Static("http://first", bad)
		require.EqualError(t, err, "httpbalance: URL number 1, "+want)
	}
}

func FuzzStatic(f *testing.F) {
	f.Add("http://10.0.0.1:8080/v1")
	f.Add("https://[fe80::1%25eth0]/%2F")
	f.Add("http://a:080")
	f.Fuzz(func(t *testing.T, s string) {
		set, err := httpbalance.Static(s)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "httpbalance: URL number 0, ") {
				t.Fatal(err)
			}
			return
		}
		// What was accepted is a backend, and its URL means the same one.
		b, err := balance.New[*url.URL](balance.Random(), balance.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Update(set); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		again, err := httpbalance.Static(set[0].Value.String())
		if err != nil || again[0].ID != set[0].ID {
			t.Fatalf("%q became %q and then %v, %v", s, set[0].Value, again, err)
		}
	})
}
