package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
