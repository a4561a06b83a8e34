# awk -v subscribers=N -f populate.awk > data.sql: the TATP population as SQL, the same for the same N and awk.
# Each subscriber has 1 to 4 access infos and special facilities, each facility 0 to 3 call forwardings.

function between(low, high) { return low + int(rand() * (high - low + 1)) }

function letters(count, text) {
    for (text = ""; count > 0; count--) text = text substr("ABCDEFGHIJKLMNOPQRSTUVWXYZ", between(1, 26), 1)
    return text
}

# Appends a row; a statement of many rows is what a server loads fast.
function row(table, values) {
    rows[table] = rows[table] (rows[table] == "" ? "" : ",\n") "(" values ")"
}

function flush(table) {
    if (rows[table] != "") print "INSERT INTO " table " VALUES\n" rows[table] ";"
    rows[table] = ""
}

# The first `count` of `total` things in a random order, in order[1..count].
function shuffle(total, count, i, other, kept) {
    for (i = 1; i <= total; i++) order[i] = i
    for (i = 1; i <= count; i++) {
        other = between(i, total); kept = order[i]; order[i] = order[other]; order[other] = kept
    }
}

function facilities(subscriber, count, i, j, start, types) {
    count = between(1, 4)
    shuffle(4, count)
    for (i = 1; i <= count; i++) types[i] = order[i]
    for (i = 1; i <= count; i++) {
        row("special_facility", subscriber "," types[i] "," (rand() < 0.85 ? 1 : 0) "," between(0, 255) "," \
            between(0, 255) ",'" letters(5) "'")
        j = between(0, 3)
        shuffle(3, j)
        for (; j > 0; j--) {
            start = (order[j] - 1) * 8
            row("call_forwarding", subscriber "," types[i] "," start "," start + between(1, 8) ",'" \
                sprintf("%015d", between(1, 1000000000)) "'")
        }
    }
}

BEGIN {
    srand(1)
    print "BEGIN;"
    for (subscriber = 1; subscriber <= subscribers; subscriber++) {
        values = subscriber ",'" sprintf("%015d", subscriber) "'"
        for (i = 0; i < 10; i++) values = values "," between(0, 1)
        for (i = 0; i < 10; i++) values = values "," between(0, 15)
        for (i = 0; i < 10; i++) values = values "," between(0, 255)
        row("subscriber", values "," sprintf("%.0f,%.0f", between(1, 4294967295), between(1, 4294967295)))
        count = between(1, 4)
        shuffle(4, count)
        for (i = 1; i <= count; i++) {
            row("access_info", subscriber "," order[i] "," between(0, 255) "," between(0, 255) ",'" letters(3) "','" letters(5) "'")
        }
        facilities(subscriber)
        if (subscriber % 200 == 0 || subscriber == subscribers) {
            flush("subscriber"); flush("access_info"); flush("special_facility"); flush("call_forwarding")
        }
    }
    print "COMMIT;"
}
