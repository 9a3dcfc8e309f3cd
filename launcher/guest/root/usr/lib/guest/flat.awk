# Flattens a YAML or JSON document into lines `<path>TAB<value>`, so that shell can read cloud-init's documents.
#
# A path is the keys and list indexes joined by "/" ("/" in a key is "~1"). In values a backslash is "\\", a newline "\n", a tab "\t":
# `printf %b` gives the text back. Covers block and flow collections, plain and quoted scalars, literal and folded blocks;
# no anchors, tags, or several documents. Malformed input gives what could be read.
# https://yaml.org/spec/1.2.2/

{ sub(/\r$/, ""); line[++count] = $0 }

END {
    at = 1
    block(0, "")
}

function indent_of(text) {
    match(text, /^ */)
    return RLENGTH
}

function trim(text) {
    sub(/^[ \t]+/, "", text)
    sub(/[ \t]+$/, "", text)
    return text
}

# Moves `at` to the next line that says something; 0 at the end of the document.
function settle() {
    while (at <= count && line[at] ~ /^[ \t]*(#.*)?$|^---([ \t]|$)|^\.\.\.([ \t]|$)/) at++
    return at <= count
}

function under(path, key) {
    gsub(/\//, "~1", key)
    return path == "" ? key : path "/" key
}

function emit(path, value) {
    gsub(/\\/, "\\\\", value)
    gsub(/\n/, "\\n", value)
    gsub(/\t/, "\\t", value)
    print path "\t" value
}

function is_item(text) { return text ~ /^ *-([ \t]|$)/ }

# Length of the `key:` a line starts with (spaces before it not counted), 0 when it is no mapping entry.
function key_length(text,    first, shut) {
    first = substr(text, 1, 1)
    if (first == "\"" || first == "'") {
        shut = index(substr(text, 2), first)
        return shut && substr(text, shut + 2) ~ /^[ \t]*:([ \t]|$)/ ? shut + 1 + index(substr(text, shut + 2), ":") : 0
    }
    if (first == "{" || first == "[" || first == "#") return 0
    return match(text, /:([ \t]|$)/) ? RSTART : 0
}

function key_of(text) {
    text = trim(substr(text, 1, length(text) - 1))
    if (text ~ /^".*"$/ || text ~ /^'.*'$/) text = substr(text, 2, length(text) - 2)
    return text
}

# Reads the node that starts on the current line, indented by at least `least` spaces.
function block(least, path,    depth, number, text, size) {
    if (!settle()) return
    depth = indent_of(line[at])
    if (depth < least) return
    text = substr(line[at], depth + 1)
    if (!is_item(line[at]) && !key_length(text)) {
        value(text, depth - 1, path)
        return
    }
    number = 0
    if (is_item(line[at])) {
        while (settle() && indent_of(line[at]) == depth && is_item(line[at])) {
            text = substr(line[at], depth + 2)
            if (text ~ /^[ \t]*(#.*)?$/) {
                at++
                if (settle() && indent_of(line[at]) > depth) block(depth + 1, under(path, number))
                else emit(under(path, number), "")
            } else {
                line[at] = sprintf("%" depth "s", "") " " text
                size = indent_of(line[at])
                text = substr(line[at], size + 1)
                if (is_item(text) || key_length(text)) block(depth + 1, under(path, number))
                else value(text, depth, under(path, number))
            }
            number++
        }
        return
    }
    while (settle() && indent_of(line[at]) == depth && !is_item(line[at])) {
        text = substr(line[at], depth + 1)
        if (!(size = key_length(text))) { at++; continue }
        number = key_of(substr(text, 1, size))
        text = trim(substr(text, size + 1))
        if (text == "" || text ~ /^#/) {
            at++
            if (settle() && (indent_of(line[at]) > depth || indent_of(line[at]) == depth && is_item(line[at])))
                block(depth, under(path, number))
            else emit(under(path, number), "")
        } else value(text, depth, under(path, number))
    }
}

# Reads a value that starts with `text` on the current line; lines that belong to it are indented deeper than `depth`.
function value(text, depth, path,    first) {
    first = substr(text, 1, 1)
    if (text ~ /^[|>][-+0-9]*([ \t]+#.*)?[ \t]*$/) {
        at++
        scalar_block(first, text, depth, path)
        return
    }
    if (first == "{" || first == "[" || first == "\"" || first == "'") {
        rest = text
        at++
        flow(path)
        return
    }
    at++
    sub(/[ \t]+#.*$/, "", text)
    text = trim(text)
    while (at <= count && line[at] ~ /[^ ]/ && indent_of(line[at]) > depth && line[at] !~ /^ *#/) text = text " " trim(line[at++])
    emit(path, plain(text))
}

function plain(text) { return text == "~" || text == "null" ? "" : text }

function scalar_block(style, header, depth, path,    own, text, out, folds, last) {
    own = -1
    out = ""
    folds = 0
    for (; at <= count; at++) {
        text = line[at]
        if (text ~ /^ *$/) text = own < 0 ? "" : substr(text, own + 1)
        else {
            if (indent_of(text) <= depth) break
            if (own < 0) own = indent_of(text)
            if (indent_of(text) < own) break
            text = substr(text, own + 1)
        }
        if (style == "|") out = out text "\n"
        else if (text == "") { out = out "\n"; folds = 0 }
        else { out = out (folds ? " " : "") text; folds = 1 }
    }
    if (style == ">") out = out "\n"
    if (header !~ /^.[0-9]*\+/) sub(/\n+$/, out ~ /^\n*$/ || header ~ /^.[0-9]*-/ ? "" : "\n", out)
    emit(path, out)
}

# --- flow style: `rest` is what is left of the line, more lines are taken as needed

function more() {
    while (1) {
        sub(/^[ \t]+/, "", rest)
        if (rest ~ /^#/) rest = ""
        if (rest != "") return 1
        if (at > count) return 0
        rest = line[at++]
    }
}

function flow(path,    first, number, key) {
    if (!more()) return
    first = substr(rest, 1, 1)
    if (first == "[") {
        rest = substr(rest, 2)
        for (number = 0; more() && substr(rest, 1, 1) != "]"; number++) {
            flow(under(path, number))
            if (more() && substr(rest, 1, 1) == ",") rest = substr(rest, 2)
        }
        rest = substr(rest, 2)
    } else if (first == "{") {
        rest = substr(rest, 2)
        while (more() && substr(rest, 1, 1) != "}") {
            key = token(":")
            if (more() && substr(rest, 1, 1) == ":") rest = substr(rest, 2)
            if (more() && substr(rest, 1, 1) ~ /[,}]/) emit(under(path, key), "")
            else flow(under(path, key))
            if (more() && substr(rest, 1, 1) == ",") rest = substr(rest, 2)
        }
        rest = substr(rest, 2)
    } else emit(path, token(""))
}

# Takes one scalar off `rest`; a plain one ends before , ] } and, when it is a key, before a colon.
function token(stop,    first, size, text) {
    first = substr(rest, 1, 1)
    if (first == "\"") return quoted_twice()
    if (first == "'") return quoted_once()
    size = match(rest, "[],}" stop "]") ? RSTART - 1 : length(rest)
    if (size == 0 && rest != "") size = 1
    text = trim(substr(rest, 1, size))
    rest = substr(rest, size + 1)
    return plain(text)
}

function quoted_once(    out, spot) {
    out = ""
    rest = substr(rest, 2)
    while (1) {
        if (!(spot = index(rest, "'"))) {
            out = out rest " "
            if (at > count) return out
            rest = trim(line[at++])
        } else if (substr(rest, spot + 1, 1) == "'") {
            out = out substr(rest, 1, spot)
            rest = substr(rest, spot + 2)
        } else {
            out = out substr(rest, 1, spot - 1)
            rest = substr(rest, spot + 1)
            return out
        }
    }
}

function quoted_twice(    out, spot, mark) {
    out = ""
    rest = substr(rest, 2)
    while (1) {
        if (!(spot = match(rest, /["\\]/))) {
            out = out rest " "
            if (at > count) return out
            rest = trim(line[at++])
            continue
        }
        mark = substr(rest, spot, 1)
        out = out substr(rest, 1, spot - 1)
        rest = substr(rest, spot + 1)
        if (mark == "\"") return out
        mark = substr(rest, 1, 1)
        rest = substr(rest, 2)
        if (mark == "n") out = out "\n"
        else if (mark == "t") out = out "\t"
        else if (mark == "r") out = out "\r"
        else if (mark == "u") out = out unicode(4)
        else if (mark == "U") out = out unicode(8)
        else if (mark == "x") out = out unicode(2)
        else out = out mark
    }
}

function hex(text,    number) {
    number = 0
    for (text = tolower(text); text != ""; text = substr(text, 2))
        number = number * 16 + index("0123456789abcdef", substr(text, 1, 1)) - 1
    return number
}

# UTF-8 of the \uXXXX (or surrogate pair) or \UXXXXXXXX whose digits stand at the front of `rest`.
function unicode(digits,    point) {
    point = hex(substr(rest, 1, digits))
    rest = substr(rest, digits + 1)
    if (point >= 55296 && point < 56320 && rest ~ /^\\u/) {
        point = 65536 + (point - 55296) * 1024 + hex(substr(rest, 3, 4)) - 56320
        rest = substr(rest, 7)
    }
    if (point < 128) return sprintf("%c", point)
    if (point < 2048) return sprintf("%c%c", 192 + int(point / 64), 128 + point % 64)
    if (point < 65536) return sprintf("%c%c%c", 224 + int(point / 4096), 128 + int(point / 64) % 64, 128 + point % 64)
    return sprintf("%c%c%c%c", 240 + int(point / 262144), 128 + int(point / 4096) % 64, 128 + int(point / 64) % 64, 128 + point % 64)
}
