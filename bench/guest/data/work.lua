-- SPDX-License-Identifier: Apache-2.0
-- Tables, closures, strings and arithmetic in Lua, the same kind of work as work.py.
local function queens(n, row, cols, left, right)
    if row == n then return 1 end
    local found, free = 0, ~(cols | left | right) & ((1 << n) - 1)
    while free ~= 0 do
        local bit = free & -free
        free = free ~ bit
        found = found + queens(n, row + 1, cols | bit, (left | bit) << 1, (right | bit) >> 1)
    end
    return found
end

local function words(turn)
    local count, list, sum = {}, {}, 0
    for i = 0, 599 do
        local word = string.format("%x", (i * 2654435761 + turn) % 4093)
        count[word] = (count[word] or 0) + 1
    end
    for word, n in pairs(count) do list[#list + 1] = { word = word, n = n } end
    table.sort(list, function(a, b) if a.n ~= b.n then return a.n > b.n end return a.word < b.word end)
    for i = 1, 100 do sum = sum + list[i].n * #list[i].word end
    return sum
end

local Account = {}
Account.__index = Account
function Account.new(id) return setmetatable({ id = id, total = 0 }, Account) end
function Account:add(n) self.total = (self.total + n * self.id) % 1000003 end

local function objects(turn)
    local all = {}
    for i = 1, 50 do all[i] = Account.new(i) end
    for i = 1, 3000 do all[i % 50 + 1]:add(i + turn) end
    local sum = 0
    for _, a in ipairs(all) do sum = sum + a.total end
    return sum
end

local total = 0
for turn = 0, tonumber(arg[1]) - 1 do
    total = (total * 31 + queens(6, 0, 0, 0, 0) + words(turn) + objects(turn)) % (1 << 52)
end
print(total)
