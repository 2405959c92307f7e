-- Undoes 0019_erasures.sql. Who was erased is forgotten: their names are taken again, and a restore brings their rows back.
DROP FUNCTION erase_step(bigint, bigint, bigint, bigint[]);
DROP FUNCTION erase_blocks(text, bigint, bigint);
DROP FUNCTION erase_belongings();
DROP FUNCTION erase_count(text, text);
DROP FUNCTION erase_tables();
DROP TABLE erasure_walk;
DROP TABLE erasures;
