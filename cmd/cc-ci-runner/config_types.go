package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
)

// formatError marks the errors of this file's types, whose text already says what is wrong with a value. Other errors
// of a value are replaced by a hint at its type (typeHint): strconv's speak of ParseInt.
type formatError struct{ text string }

func (e *formatError) Error() string { return e.text }

// hidden is a string that prints as stars with every verb that asks a Stringer, so that no log or error can hold it by
// accident. encoding/json would show it: a Config is never encoded.
type hidden string

func (hidden) String() string   { return "******" }
func (hidden) GoString() string { return "******" }

// pairs is a map written as key:value,key:value. The first colon ends the key, so values may hold colons, with which
// envconfig's own maps refuse to start; a value in double quotes may hold commas, and "" stands for a quote in it. Its
// errors do not quote the text: a variable for steps may well be a secret.
type pairs map[string]string

// Decode implements envconfig.Decoder.
func (p *pairs) Decode(text string) error {
	result := pairs{}
	for rest := strings.TrimSpace(text); rest != ""; {
		key, after, ok := strings.Cut(rest, ":")
		if !ok || strings.TrimSpace(key) == "" {
			return &formatError{"a part is not of the form key:value; separate pairs by commas and put a value that holds one into double quotes"}
		}
		value, next, err := cutValue(after)
		if err != nil {
			return err
		}
		result[strings.TrimSpace(key)] = value
		rest = next
	}
	*p = result
	return nil
}

// cutValue cuts one value, quoted or not, off the front of text, with the comma behind it.
func cutValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		value, rest, _ = strings.Cut(text, ",")
		return strings.TrimSpace(value), strings.TrimSpace(rest), nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			b.WriteByte(text[i])
			continue
		}
		if strings.HasPrefix(text[i+1:], `"`) {
			b.WriteByte('"')
			i++
			continue
		}
		rest = strings.TrimSpace(text[i+1:])
		if rest != "" && rest[0] != ',' {
			return "", "", &formatError{"a comma must follow the closing quote of a value"}
		}
		return b.String(), strings.TrimSpace(strings.TrimPrefix(rest, ",")), nil
	}
	return "", "", &formatError{"the double quote of a value is not closed"}
}

// globList is a list of path.Match patterns, separated by commas. Set but empty is not the same as unset: as in
// drone-runner-exec, an empty limit denies everything. So a decoded list is never nil, and an unset one is: envconfig
// calls no decoder for what is not set.
type globList []string

// Decode implements envconfig.Decoder.
func (g *globList) Decode(text string) error {
	list := globList{}
	for _, pattern := range strings.Split(text, ",") {
		pattern = strings.TrimSpace(pattern)
		if pattern == "" {
			continue
		}
		if _, err := filepath.Match(pattern, ""); err != nil {
			return &formatError{fmt.Sprintf("%q is not a valid pattern; see Go's path.Match", pattern)}
		}
		list = append(list, pattern)
	}
	*g = list
	return nil
}

// match says whether one of the patterns fits.
func (g globList) match(name string) bool {
	for _, pattern := range g {
		if ok, err := filepath.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}

// textList is a list separated by commas; empty items are left out.
type textList []string

// Decode implements envconfig.Decoder.
func (l *textList) Decode(text string) error {
	list := textList{}
	for _, item := range strings.Split(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	*l = list
	return nil
}

// byteSize is a number of bytes written with a unit of 1024: 512MiB, 2g, 1048576. It is never negative.
type byteSize int64

// Decode implements envconfig.Decoder.
func (b *byteSize) Decode(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return &formatError{fmt.Sprintf("%q is not a size (such as 512MiB or 2GiB)", text)}
	}
	*b = byteSize(n)
	return nil
}

// mergeEnvFiles puts the variables of DRONE_RUNNER_ENVFILE (or DRONE_RUNNER_ENV_FILE) over DRONE_RUNNER_ENVIRON. Both
// may name one file, never two (validate), so the order in which they are read does not matter. A file that cannot be
// read is an error: the steps would miss what is in it.
func mergeEnvFiles(config *Config) (pairs, error) {
	merged := pairs{}
	maps.Copy(merged, config.Environ)
	for name, path := range map[string]string{"DRONE_RUNNER_ENVFILE": config.EnvFile, "DRONE_RUNNER_ENV_FILE": config.EnvFile2} {
		vars, err := readEnvFile(name, path)
		if err != nil {
			return nil, err
		}
		maps.Copy(merged, vars)
	}
	return merged, nil
}
