package httplimit_test

import (
	"errors"
	"strconv"
	"strings"
)

// A strict parser for the part of RFC 9651 that the fields use: a List of Strings
// with Integer parameters. It is written from section 4.2 and shares nothing with
// the code under test.

type member struct {
	name   string
	params map[string]int64
}

type parser struct{ in string }

func (p *parser) next() (byte, bool) {
	if p.in == "" {
		return 0, false
	}
	return p.in[0], true
}

func (p *parser) accept(c byte) bool {
	if have, ok := p.next(); !ok || have != c {
		return false
	}
	p.in = p.in[1:]
	return true
}

// parseList is section 4.2.1, for the value of one or more field lines.
func parseList(lines ...string) ([]member, error) {
	p := &parser{strings.Trim(strings.Join(lines, ", "), " ")}
	var out []member
	for p.in != "" {
		name, err := p.str()
		if err != nil {
			return nil, err
		}
		params, err := p.parameters()
		if err != nil {
			return nil, err
		}
		out = append(out, member{name, params})
		p.in = strings.TrimLeft(p.in, " \t")
		if p.in == "" {
			return out, nil
		}
		if !p.accept(',') {
			return nil, errors.New("expected a comma")
		}
		p.in = strings.TrimLeft(p.in, " \t")
		if p.in == "" {
			return nil, errors.New("trailing comma")
		}
	}
	return out, nil
}

// str is section 4.2.5.
func (p *parser) str() (string, error) {
	if !p.accept('"') {
		return "", errors.New("expected a quote")
	}
	var out []byte
	for {
		c, ok := p.next()
		if !ok {
			return "", errors.New("string without end")
		}
		p.in = p.in[1:]
		switch {
		case c == '\\':
			c, ok = p.next()
			if !ok || c != '"' && c != '\\' {
				return "", errors.New("bad escape")
			}
			p.in = p.in[1:]
			out = append(out, c)
		case c == '"':
			return string(out), nil
		case c < 0x20 || c >= 0x7f:
			return "", errors.New("character out of range")
		default:
			out = append(out, c)
		}
	}
}

// parameters is section 4.2.3.2; every value must be an Integer here.
func (p *parser) parameters() (map[string]int64, error) {
	out := map[string]int64{}
	for p.accept(';') {
		p.in = strings.TrimLeft(p.in, " ")
		i := 0
		for i < len(p.in) && strings.IndexByte("abcdefghijklmnopqrstuvwxyz0123456789_-.*", p.in[i]) >= 0 {
			i++
		}
		if i == 0 || strings.IndexByte("abcdefghijklmnopqrstuvwxyz*", p.in[0]) < 0 {
			return nil, errors.New("bad key")
		}
		key := p.in[:i]
		p.in = p.in[i:]
		if !p.accept('=') {
			return nil, errors.New("expected an integer")
		}
		i = 0
		for i < len(p.in) && (p.in[i] >= '0' && p.in[i] <= '9' || i == 0 && p.in[i] == '-') {
			i++
		}
		if len(strings.TrimPrefix(p.in[:i], "-")) > 15 {
			return nil, errors.New("integer too long")
		}
		n, err := strconv.ParseInt(p.in[:i], 10, 64)
		if err != nil {
			return nil, err
		}
		p.in = p.in[i:]
		out[key] = n
	}
	return out, nil
}
