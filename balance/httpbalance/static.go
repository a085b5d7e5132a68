package httpbalance

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/evenkeel-go/evenkeel/balance"
)

// Static returns the backends of a fixed list of URLs, such as
// "http://10.0.0.1:8080" or "https://b.example.com/v1", for [balance.Balancer.Update].
// The ID of each is its host and port, and its path if it has one. Weights and zones
// can be set in what is returned. Spaces around a URL do not matter.
//
// Returns an error that names the entry, by number and text, if it is not an http or
// https URL of a host with an optional port and path, or if two have the same ID.
func Static(urls ...string) ([]balance.Backend[*url.URL], error) {
	set := make([]balance.Backend[*url.URL], 0, len(urls))
	at := make(map[string]int, len(urls))
	for i, s := range urls {
		u, err := parseTarget(s)
		if err != nil {
			return nil, fmt.Errorf("httpbalance: URL number %d, %q: %w", i, s, err)
		}
		b := backendAt(u, u.Hostname(), portOf(u))
		if first, ok := at[b.ID]; ok {
			return nil, fmt.Errorf("httpbalance: URL number %d, %q: the same backend as number %d, %q", i, s, first, urls[first])
		}
		at[b.ID] = i
		set = append(set, b)
	}
	return set, nil
}

// parseTarget parses the URL of a backend or of a service.
func parseTarget(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	var e *url.Error
	switch {
	case errors.As(err, &e):
		return nil, e.Err // without the text, which the caller adds
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the scheme is %q, expected http or https", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("there is no host, expected one after ://")
	case u.User != nil:
		return nil, errors.New("there is a user, expected none: set the header Authorization in the requests")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, errors.New("there is a query, expected none")
	case u.Fragment != "":
		return nil, errors.New("there is a fragment, expected none")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("the port is %s, expected 1 to 65535", p)
		}
	}
	return u, nil
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// backendAt returns the backend of the service u at a host and a port.
func backendAt(u *url.URL, host, port string) balance.Backend[*url.URL] {
	at := *u
	at.Host = net.JoinHostPort(strings.ToLower(host), port)
	return balance.Backend[*url.URL]{
		ID:    at.Host + strings.TrimSuffix(at.EscapedPath(), "/"),
		Value: &at,
	}
}
