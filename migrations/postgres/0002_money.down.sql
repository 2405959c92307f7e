-- Undoes 0002_money.sql. Every cost and every kept answer is lost with it.

DROP TABLE charges;
DROP TABLE spend;
DROP TABLE memos;
