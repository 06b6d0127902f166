-- SPDX-License-Identifier: Apache-2.0
-- Inserts, indexes, joins, grouping, updates and text search in memory.
CREATE TABLE item(id INTEGER PRIMARY KEY, kind INTEGER, price REAL, name TEXT);
CREATE TABLE sale(id INTEGER PRIMARY KEY, item INTEGER, amount INTEGER, day INTEGER);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO item SELECT i, i * 7919 % 97, (i * 31 % 1000) / 8.0, printf('item-%x', i * 2654435761 % 1048573) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT INTO sale SELECT i, i * 48271 % 60000 + 1, i % 9 + 1, i * 17 % 365 FROM n;
COMMIT;
CREATE INDEX sale_item ON sale(item);
CREATE INDEX item_name ON item(name);
SELECT kind, count(*), sum(amount * price) FROM sale JOIN item ON item.id = sale.item GROUP BY kind ORDER BY 3 DESC LIMIT 10;
SELECT day, sum(amount) FROM sale GROUP BY day HAVING sum(amount) > 400 ORDER BY 2 DESC, 1 LIMIT 10;
SELECT count(*), min(name), max(name) FROM item WHERE name LIKE '%a3%';
UPDATE item SET price = price * 1.5 WHERE kind % 3 = 1;
DELETE FROM sale WHERE day BETWEEN 100 AND 120;
SELECT count(*), total(price) FROM item WHERE id IN (SELECT item FROM sale WHERE amount > 5);
SELECT a.name, b.name FROM item a JOIN item b ON b.name > a.name AND b.id = a.id + 1 WHERE a.kind = 5 ORDER BY a.name LIMIT 5;
