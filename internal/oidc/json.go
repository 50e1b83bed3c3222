package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep JSON may nest. Claims and keys need three.
const maxDepth = 8

// parseObject reads one JSON object so that it has one meaning: a member that is there
// twice, at any depth, is an error even with equal values (another parser might have
// taken the other one), names are compared as they are ("Aud" is not "aud"), and nothing
// follows the object. Numbers become json.Number.
func parseObject(b []byte) (map[string]any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("is not UTF-8")
	}
	if !json.Valid(b) {
		return nil, errors.New("is not JSON")
	}
	if halfCharacter(b) {
		return nil, errors.New("holds half a character, which readers replace by different ones")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("is not a JSON object")
	}
	return obj, nil
}

// halfCharacter looks in valid JSON for an escaped surrogate without its other half.
func halfCharacter(b []byte) bool {
	unit := func(i int) rune { // of an escape at i, or 0
		if i+6 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(b[i+2:i+6]), 16, 16) // valid JSON has four digits
		return rune(n)
	}
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		if r := unit(i); utf16.IsSurrogate(r) {
			if utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError {
				return true
			}
			i += 6
		}
		i++ // what is escaped; digits are no backslashes
	}
	return false
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errors.New("is not JSON")
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("nests deeper than %d", maxDepth)
	}
	var v any
	if delim == '{' {
		v, err = parseMembers(d, depth+1)
	} else {
		v, err = parseElements(d, depth+1)
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != nil { // the closing one
		return nil, errors.New("is not JSON")
	}
	return v, nil
}

func parseMembers(d *json.Decoder, depth int) (map[string]any, error) {
	obj := make(map[string]any)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("is not JSON")
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("is not JSON")
		}
		if _, ok := obj[name]; ok {
			return nil, fmt.Errorf("member %s is given twice", quote(name))
		}
		if obj[name], err = parseValue(d, depth); err != nil {
			return nil, err
		}
	}
	return obj, nil
}

func parseElements(d *json.Decoder, depth int) ([]any, error) {
	list := []any{}
	for d.More() {
		v, err := parseValue(d, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
